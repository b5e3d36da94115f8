//! How long runs take, learnt from those that have run.

use std::time::Duration;

/// How much of what was learnt is kept with each run: the last twenty runs or so count.
const KEEP: f64 = 0.95;

/// A run that takes more than this many times the prediction counts as so many times: the first run of a shape on a GPU
/// allocates, and a machine may pause.
const OUTLIER: f64 = 4.0;

/// A line through the runs, seconds = fixed + slope · cost, by least squares over what is remembered; and seconds per token.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fit {
    weight: f64,
    cost: f64,
    seconds: f64,
    cost_cost: f64,
    cost_seconds: f64,
    tokens: f64,
}

impl Fit {
    /// Learns from a run.
    pub(super) fn add(&mut self, cost: usize, tokens: usize, time: Duration) {
        let cost = cost as f64;
        let mut seconds = time.as_secs_f64();
        if self.weight > 2.0 {
            seconds = seconds.min(OUTLIER * self.seconds_for(cost));
        }
        for (sum, value) in [
            (&mut self.weight, 1.0),
            (&mut self.cost, cost),
            (&mut self.seconds, seconds),
            (&mut self.cost_cost, cost * cost),
            (&mut self.cost_seconds, cost * seconds),
            (&mut self.tokens, tokens as f64),
        ] {
            *sum = *sum * KEEP + value;
        }
    }

    /// How long a run of this cost will take; `None` before the first one has run.
    pub(super) fn predict(&self, cost: usize) -> Option<Duration> {
        (self.weight > 0.0).then(|| duration(self.seconds_for(cost as f64)))
    }

    /// How long so many tokens keep a device busy; zero before the first run.
    pub(super) fn work(&self, tokens: usize) -> Duration {
        if self.tokens > 0.0 { duration(self.seconds / self.tokens * tokens as f64) } else { Duration::ZERO }
    }

    fn seconds_for(&self, cost: f64) -> f64 {
        let variance = self.weight * self.cost_cost - self.cost * self.cost;
        let slope = (self.weight * self.cost_seconds - self.cost * self.seconds) / variance;
        let fixed = (self.seconds - slope * self.cost) / self.weight;
        // Runs that are all alike say nothing about others, and noise may tilt the line: then time is in proportion to cost.
        let is_line = variance > 1e-6 * self.cost * self.cost && slope > 0.0 && fixed >= 0.0;
        if is_line { fixed + slope * cost } else { self.seconds / self.cost.max(1.0) * cost }
    }
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: Option<Duration>, wanted: f64) -> bool {
        found.is_some_and(|found| (found.as_secs_f64() - wanted).abs() < 0.01 * wanted)
    }

    #[test]
    fn a_line_is_found_and_followed_when_the_machine_changes() {
        let mut fit = Fit::default();
        assert_eq!((fit.predict(100), fit.work(100)), (None, Duration::ZERO));
        for slower in [1.0, 3.0] {
            for run in 0..200 {
                let cost = 10 + run * 37 % 500;
                fit.add(cost, cost, Duration::from_secs_f64(slower * (0.02 + 0.001 * cost as f64)));
            }
            assert!(close(fit.predict(1000), slower * 1.02), "{:?}", fit.predict(1000));
        }
    }

    #[test]
    fn runs_that_are_all_alike_predict_in_proportion() {
        let mut fit = Fit::default();
        for _ in 0..50 {
            fit.add(100, 80, Duration::from_secs(1));
        }
        assert!(close(fit.predict(200), 2.0) && close(fit.predict(50), 0.5));
        assert!(close(Some(fit.work(160)), 2.0));
    }

    #[test]
    fn one_slow_run_does_not_count_for_more_than_four() {
        let mut fit = Fit::default();
        for _ in 0..20 {
            fit.add(100, 100, Duration::from_secs(1));
        }
        fit.add(100, 100, Duration::from_secs(1000));
        assert!(fit.predict(100).unwrap() < Duration::from_secs(2));
    }
}
