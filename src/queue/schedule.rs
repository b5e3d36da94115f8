//! Which rows run next: a pure function of what was submitted, what has run, and the time that the caller says it is.
//!
//! **Interactive** rows are ordered by when they are due: row k of a request is due at its arrival plus the time that its rows
//! up to k take alone. So short requests go before long ones that arrived with them, no row waits for ever, and a long
//! request lets others pass between its rows.
//!
//! **Bulk** rows are ordered by a virtual time that counts tokens: a request begins at the tag of the row that was taken
//! last, and row k is tagged with the tokens up to k. So all bulk requests advance alike, however many rows they have.
//!
//! **Between the two** there is one clock: bulk is due. Whenever a bulk run is taken, that moves on by `bulk_weight` times the
//! run's predicted time. Bulk goes first if it is due by now, or if nothing interactive waits. So while
//! interactive rows wait, bulk gets one part in `bulk_weight` of the time, and never less, whatever the number of bulk
//! requests; and what bulk got while nobody else wanted it is not held against it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::fit::Fit;
use super::options::{Class, Order};
use crate::batch::Shape;

/// How long after the last interactive request runs are still kept short.
const SEEN: Duration = Duration::from_secs(10);

/// How many rows, in their order, are looked at to fill a run.
const LOOK_AHEAD: usize = 1024;

/// What the schedule has to know about the device.
pub(super) trait Device {
    /// Whether rows of this shape may run together.
    fn fits(&self, shape: Shape) -> bool;
    /// The cost of a run of this shape, in tokens, without [`Device::run_cost`].
    fn cost(&self, shape: Shape) -> usize;
    /// The fixed cost of a run, in tokens.
    fn run_cost(&self) -> usize;
}

/// A row that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Its request.
    pub(super) request: u64,
    /// Its number in the request.
    pub(super) index: usize,
    pub(super) tokens: usize,
}

/// When a row is due, in nanoseconds, or its virtual time in tokens; then the order of arrival.
type Key = (u64, u64);

struct Waiting {
    class: Class,
    keys: Vec<Key>,
    deadline: Option<Duration>,
}

/// What waits, in order. Times are counted from any fixed moment.
pub(super) struct Schedule {
    interactive: BTreeMap<Key, Row>,
    bulk: BTreeMap<Key, Row>,
    requests: HashMap<u64, Waiting>,
    /// The tokens of the rows in `interactive` and `bulk`.
    tokens: (usize, usize),
    order: Order,
    /// `bulk_weight`, over the number of devices: what one run adds to `bulk_due`, in its own time.
    bulk_weight: f64,
    max_run: Duration,
    /// From when on bulk goes before interactive rows.
    bulk_due: Duration,
    /// The virtual time of bulk: the tag of the row that was taken last.
    virtual_time: u64,
    /// When an interactive request was last submitted or waiting.
    seen: Option<Duration>,
    next: u64,
}

/// What a device is to run next.
#[derive(Debug, Default)]
pub(super) struct Pull {
    /// Requests that cannot meet their deadline any more; their rows are gone.
    pub(super) hopeless: Vec<u64>,
    /// Rows to run together; empty when nothing waits.
    pub(super) rows: Vec<Row>,
}

impl Schedule {
    pub(super) fn new(order: Order, bulk_weight: usize, max_run: Duration, devices: usize) -> Self {
        Self {
            interactive: BTreeMap::new(),
            bulk: BTreeMap::new(),
            requests: HashMap::new(),
            tokens: (0, 0),
            order,
            bulk_weight: bulk_weight as f64 / devices.max(1) as f64,
            max_run,
            bulk_due: Duration::ZERO,
            virtual_time: 0,
            seen: None,
            next: 0,
        }
    }

    /// Takes the rows of a request, of these lengths.
    pub(super) fn add(
        &mut self,
        request: u64,
        class: Class,
        lengths: &[usize],
        deadline: Option<Duration>,
        now: Duration,
        fit: &Fit,
    ) {
        // In order of arrival the classes are one.
        let class = if self.order == Order::Arrival { Class::Interactive } else { class };
        if class == Class::Interactive {
            self.seen = Some(now);
        } else if self.bulk.is_empty() {
            // Its first row pays like all others, so that bulk in single rows gets no more than its share.
            let first = fit.work(lengths.first().copied().unwrap_or(0));
            self.bulk_due = self.bulk_due.max(now + first.mul_f64(self.bulk_weight));
        }
        let mut tokens_so_far = 0;
        let keys: Vec<Key> = lengths
            .iter()
            .map(|tokens| {
                tokens_so_far += *tokens;
                let due = match (self.order, class) {
                    (Order::Arrival, _) => 0,
                    (Order::Fair, Class::Interactive) => nanoseconds(now + fit.work(tokens_so_far)),
                    (Order::Fair, Class::Bulk) => self.virtual_time + tokens_so_far as u64,
                };
                self.next += 1;
                (due, self.next)
            })
            .collect();
        let rows = if class == Class::Interactive { &mut self.interactive } else { &mut self.bulk };
        for (index, (key, tokens)) in keys.iter().zip(lengths).enumerate() {
            rows.insert(*key, Row { request, index, tokens: *tokens });
        }
        *self.tokens_of(class) += tokens_so_far;
        self.requests.insert(request, Waiting { class, keys, deadline });
    }

    /// Takes a request's waiting rows out; returns how many there were.
    pub(super) fn remove(&mut self, request: u64) -> usize {
        let Some(Waiting { class, keys, .. }) = self.requests.remove(&request) else { return 0 };
        keys.into_iter().filter(|key| self.take(class, *key).is_some()).count()
    }

    /// The tokens that wait, of interactive and of bulk requests.
    pub(super) fn tokens(&self) -> (usize, usize) {
        self.tokens
    }

    /// The rows that wait, of interactive and of bulk requests.
    pub(super) fn rows(&self) -> (usize, usize) {
        (self.interactive.len(), self.bulk.len())
    }

    /// The rows that a device is to run next.
    pub(super) fn pull(&mut self, now: Duration, device: &impl Device, fit: &Fit) -> Pull {
        let mut pull = Pull::default();
        loop {
            let Some((class, key, head)) = self.head(now) else { return pull };
            if self.is_hopeless(head, now, device, fit) {
                self.remove(head.request);
                pull.hopeless.push(head.request);
                continue;
            }
            if class == Class::Interactive && self.order == Order::Fair {
                self.seen = Some(now);
            }
            let rows = self.fill(class, key, head, now, device, fit, &mut pull.hopeless);
            if class == Class::Bulk {
                let predicted = fit.predict(device.cost(shape_of(&rows))).unwrap_or(Duration::ZERO);
                self.bulk_due = self.bulk_due.min(now) + predicted.mul_f64(self.bulk_weight);
            }
            pull.rows = rows;
            return pull;
        }
    }

    /// The row that goes first.
    fn head(&self, now: Duration) -> Option<(Class, Key, Row)> {
        let interactive = self.interactive.first_key_value().map(|(key, row)| (Class::Interactive, *key, *row));
        let bulk = self.bulk.first_key_value().map(|(key, row)| (Class::Bulk, *key, *row));
        match (interactive, bulk) {
            (Some(interactive), Some(bulk)) => Some(if self.bulk_due <= now { bulk } else { interactive }),
            (one, other) => one.or(other),
        }
    }

    /// Takes the head, and rows that may run with it.
    #[expect(clippy::too_many_arguments, reason = "the parts of one decision")]
    fn fill(
        &mut self,
        class: Class,
        key: Key,
        head: Row,
        now: Duration,
        device: &impl Device,
        fit: &Fit,
        hopeless: &mut Vec<u64>,
    ) -> Vec<Row> {
        let mut shape = shape_of(&[head]);
        let mut taken = vec![(class, key, head)];
        let candidates = self.candidates(class, key, head.tokens);
        for (other, key, row) in candidates {
            let with = grown(shape, row);
            let (before, after) = (device.cost(shape), device.cost(with));
            let allowed = if class == Class::Interactive && other == Class::Bulk {
                // Only a seat that would be empty, or that a run costs anyway.
                after <= before.max(device.run_cost())
            } else {
                // Not dearer than two runs, and not longer than a query should wait.
                after <= before + device.cost(shape_of(&[row])) + device.run_cost()
                    && self.is_short(after, now, device, fit)
            };
            if allowed && device.fits(with) && !hopeless.contains(&row.request) {
                if self.is_hopeless(row, now, device, fit) {
                    // A request with a row in this run is judged when its next row is the head.
                    if taken.iter().all(|(_, _, other)| other.request != row.request) {
                        hopeless.push(row.request);
                    }
                    continue;
                }
                taken.push((other, key, row));
                shape = with;
            }
        }
        for request in hopeless.iter() {
            self.remove(*request);
        }
        for (class, key, _) in &taken {
            self.take(*class, *key);
            if *class == Class::Bulk {
                self.virtual_time = self.virtual_time.max(key.0);
            }
        }
        taken.into_iter().map(|(_, _, row)| row).collect()
    }

    /// The rows that may join a head, the most fitting ones first.
    fn candidates(&self, class: Class, head: Key, length: usize) -> Vec<(Class, Key, Row)> {
        let of = |class, rows: &BTreeMap<Key, Row>| -> Vec<(Class, Key, Row)> {
            let others = rows.iter().filter(|(key, _)| **key != head);
            others.take(LOOK_AHEAD).map(|(key, row)| (class, *key, *row)).collect()
        };
        let mut same = of(class, if class == Class::Bulk { &self.bulk } else { &self.interactive });
        if self.order == Order::Arrival {
            return same;
        }
        // Rows of one length pad nothing. Of the same difference, the first ones come first.
        same.sort_by_key(|(_, key, row)| (row.tokens.abs_diff(length), *key));
        if class == Class::Interactive {
            let mut bulk = of(Class::Bulk, &self.bulk);
            bulk.sort_by_key(|(_, key, row)| (row.tokens.abs_diff(length), *key));
            same.extend(bulk);
        }
        same
    }

    /// Whether a run of this cost is short enough to begin now.
    fn is_short(&self, cost: usize, now: Duration, device: &impl Device, fit: &Fit) -> bool {
        if self.order == Order::Arrival || self.seen.is_none_or(|seen| now.saturating_sub(seen) > SEEN) {
            return true;
        }
        match fit.predict(cost) {
            Some(time) => time <= self.max_run,
            // Nothing has run yet: a small run will tell.
            None => cost <= device.run_cost(),
        }
    }

    /// Whether a row would miss its deadline even alone and at twice the usual speed.
    fn is_hopeless(&self, row: Row, now: Duration, device: &impl Device, fit: &Fit) -> bool {
        let deadline = self.requests.get(&row.request).and_then(|request| request.deadline);
        deadline.is_some_and(|deadline| {
            let alone = fit.predict(device.cost(shape_of(&[row]))).unwrap_or(Duration::ZERO);
            now + alone / 2 >= deadline
        })
    }

    fn take(&mut self, class: Class, key: Key) -> Option<Row> {
        let rows = if class == Class::Interactive { &mut self.interactive } else { &mut self.bulk };
        let row = rows.remove(&key)?;
        *self.tokens_of(class) -= row.tokens;
        Some(row)
    }

    fn tokens_of(&mut self, class: Class) -> &mut usize {
        if class == Class::Interactive { &mut self.tokens.0 } else { &mut self.tokens.1 }
    }
}

/// The shape of rows that run together.
pub(super) fn shape_of(rows: &[Row]) -> Shape {
    rows.iter().fold(Shape { rows: 0, length: 0, tokens: 0 }, |shape, row| grown(shape, *row))
}

fn grown(shape: Shape, row: Row) -> Shape {
    Shape { rows: shape.rows + 1, length: shape.length.max(row.tokens), tokens: shape.tokens + row.tokens }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
