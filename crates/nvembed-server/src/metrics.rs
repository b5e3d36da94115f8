//! What Prometheus can read.

use std::fmt;
use std::sync::{Arc, OnceLock};

use nvembed::queue::QueueStats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::app::Model;

/// The labels of a request. A route is one of ours, never the client's path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) route: String,
    pub(crate) code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RouteLabels {
    pub(crate) route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabels {
    pub(crate) reason: &'static str,
}

/// Why requests were refused, all of them known before the first one.
pub(crate) const REASONS: [&str; 6] = ["invalid", "unauthorized", "too_large", "overloaded", "deadline", "unavailable"];

type Times = Family<RouteLabels, Histogram, fn() -> Histogram>;

/// Counters, gauges and histograms; all are there at zero from the start.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) in_flight: Gauge,
    pub(crate) texts: Counter,
    pub(crate) tokens: Counter,
    pub(crate) truncated_texts: Counter,
    pub(crate) rejected: Family<ReasonLabels, Counter>,
    pub(crate) left: Counter,
    pub(crate) without_input_type: Counter,
    pub(crate) instructions_in_text: Counter,
    pub(crate) duration: Times,
    pub(crate) queue: Histogram,
    pub(crate) run: Histogram,
    pub(crate) text_tokens: Histogram,
    pub(crate) ready: Gauge,
    pub(crate) connections: Gauge,
}

fn times() -> Histogram {
    // 1 ms to 262 s.
    Histogram::new(exponential_buckets(0.001, 2.0, 19))
}

impl Metrics {
    /// All metrics at zero, for these routes.
    pub(crate) fn new(routes: &[&str], model: Arc<OnceLock<Model>>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        registry.register_collector(Box::new(InQueue(model)));
        let ours = registry.sub_registry_with_prefix("nvembed");
        let requests = Family::<RequestLabels, Counter>::default();
        let duration = Family::<RouteLabels, Histogram, fn() -> Histogram>::new_with_constructor(times);
        let rejected = Family::<ReasonLabels, Counter>::default();
        for route in routes {
            let route = (*route).to_owned();
            drop(requests.get_or_create(&RequestLabels { route: route.clone(), code: 200 }));
            drop(duration.get_or_create(&RouteLabels { route }));
        }
        for reason in REASONS {
            drop(rejected.get_or_create(&ReasonLabels { reason }));
        }
        ours.register("requests", "Requests by route and status; 499 is a client that left", requests.clone());
        ours.register_with_unit("request_duration", "From header to answer", Unit::Seconds, duration.clone());
        ours.register("rejected", "Requests that were not answered, by reason", rejected.clone());
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            ours.register(name, help, counter.clone());
            counter
        };
        let (texts, tokens) =
            (counter("texts", "Texts embedded"), counter("tokens", "Token ids embedded, with instructions"));
        let truncated_texts = counter("truncated_texts", "Texts that were cut at the limit");
        let left = counter("requests_abandoned", "Requests whose client left before the answer");
        let without_input_type = counter(
            "requests_without_input_type",
            "Requests that did not say whether their texts are queries or passages",
        );
        let instructions_in_text = counter(
            "instructions_in_text",
            "Texts with an instruction of the model's template inside, which was read as text",
        );
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            ours.register(name, help, gauge.clone());
            gauge
        };
        let in_flight = gauge("requests_in_flight", "Requests being answered");
        let connections = gauge("connections", "Open connections");
        let ready = gauge("ready", "1 while the server is ready");
        let (queue, run, text_tokens) = (times(), times(), Histogram::new(exponential_buckets(8.0, 2.0, 13)));
        ours.register_with_unit("queue_duration", "Until the first row of a request ran", Unit::Seconds, queue.clone());
        ours.register_with_unit("run_duration", "In ONNX Runtime, per request", Unit::Seconds, run.clone());
        ours.register("text_tokens", "Token ids per text", text_tokens.clone());
        ours.register("build", "This program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self {
            registry,
            requests,
            in_flight,
            texts,
            tokens,
            truncated_texts,
            rejected,
            left,
            without_input_type,
            instructions_in_text,
            duration,
            queue,
            run,
            text_tokens,
            ready,
            connections,
        }
    }

    /// The text of OpenMetrics, or that of Prometheus before it.
    pub(crate) fn text(&self, open_metrics: bool) -> Result<String, fmt::Error> {
        let mut text = String::new();
        if open_metrics {
            text::encode(&mut text, &self.registry)?;
        } else {
            prometheus_text::encode(&mut text, &self.registry)?;
        }
        Ok(text)
    }
}

/// What the queue says of itself when it is asked.
struct InQueue(Arc<OnceLock<Model>>);

impl fmt::Debug for InQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InQueue")
    }
}

impl Collector for InQueue {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let stats = self.0.get().map(|model| model.queue.stats()).unwrap_or_default();
        let QueueStats { interactive, bulk, .. } = stats;
        let gauges = [
            ("nvembed_queue_tokens", "Tokens that wait", interactive.waiting_tokens, bulk.waiting_tokens),
            ("nvembed_queue_texts", "Texts that wait", interactive.waiting_rows, bulk.waiting_rows),
        ];
        for (name, help, interactive, bulk) in gauges {
            let values = [("interactive", interactive as u64), ("bulk", bulk as u64)];
            labelled(&mut encoder, name, help, MetricType::Gauge, "class", &values)?;
        }
        let help = "How long a short request that came now would wait";
        let name = "nvembed_queue_wait_estimate";
        let mut metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (class, wait) in [("interactive", interactive.estimated_wait), ("bulk", bulk.estimated_wait)] {
            ConstGauge::new(wait.as_secs_f64()).encode(metric.encode_family(&[("class", class)])?)?;
        }
        let help = "Texts of requests that were admitted";
        let values = [("interactive", interactive.admitted_rows), ("bulk", bulk.admitted_rows)];
        labelled(&mut encoder, "nvembed_admitted_texts", help, MetricType::Counter, "class", &values)?;
        let help = "Texts that nobody waited for any more, before they ran or while they did";
        let values = [("queue", stats.abandoned_waiting_rows), ("run", stats.abandoned_running_rows)];
        labelled(&mut encoder, "nvembed_abandoned_texts", help, MetricType::Counter, "stage", &values)?;
        for (name, help, value) in [
            ("nvembed_runs", "Runs that ended", stats.runs),
            ("nvembed_failed_runs", "Runs that failed", stats.failed_runs),
            ("nvembed_run_texts", "Texts of all runs", stats.run_rows),
            ("nvembed_run_tokens", "Tokens of all runs", stats.run_tokens),
            ("nvembed_computed_positions", "Positions that runs computed, with padding", stats.computed_positions),
            (
                "nvembed_hopeless_requests",
                "Requests dropped as they could not meet their deadline",
                stats.hopeless_requests,
            ),
        ] {
            ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let (texts, tokens) = (stats.running_rows as u64, stats.running_tokens as u64);
        for (name, help, value) in
            [("nvembed_running_texts", "Texts that run", texts), ("nvembed_running_tokens", "Tokens that run", tokens)]
        {
            whole(value, encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

/// A metric with one label, which has two values.
fn labelled(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    kind: MetricType,
    label: &'static str,
    values: &[(&'static str, u64); 2],
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (of, value) in values {
        let labels = [(label, *of)];
        let metric = metric.encode_family(&labels)?;
        match kind {
            MetricType::Counter => ConstCounter::new(*value).encode(metric)?,
            _ => whole(*value, metric)?,
        }
    }
    Ok(())
}

fn whole(value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)
}

/// What Linux says about this process, under the names that every Prometheus client uses. Nothing on other systems.
#[derive(Debug)]
struct Process;

impl Process {
    fn cpu_seconds() -> Option<f64> {
        /// What `sysconf(_SC_CLK_TCK)` is on every Linux.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The program's name is in brackets and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some((number(11)? + number(12)?) as f64 / TICKS_PER_SECOND)
    }

    fn resident_bytes() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        if let Some(seconds) = Self::cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "Processor time of the process";
            let metric = encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), counter.metric_type())?;
            counter.encode(metric)?;
        }
        let files = std::fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
        let gauges = [
            ("process_resident_memory", "Memory of the process", Some(Unit::Bytes), Self::resident_bytes()),
            ("process_open_fds", "Open files of the process", None, files.map(|files| files as u64)),
        ];
        for (name, help, unit, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_there_at_zero_in_both_formats() {
        let metrics = Metrics::new(&["/v1/embeddings"], Arc::default());
        let (old, new) = (metrics.text(false).unwrap(), metrics.text(true).unwrap());
        for line in [
            "nvembed_requests_total{route=\"/v1/embeddings\",code=\"200\"} 0",
            "nvembed_request_duration_seconds_count{route=\"/v1/embeddings\"} 0",
            "nvembed_rejected_total{reason=\"overloaded\"} 0",
            "nvembed_requests_without_input_type_total 0",
            "nvembed_ready 0",
            "nvembed_queue_tokens{class=\"bulk\"} 0",
            "nvembed_queue_wait_estimate_seconds{class=\"interactive\"} 0.0",
            "nvembed_abandoned_texts_total{stage=\"run\"} 0",
            "nvembed_runs_total 0",
        ] {
            assert!(old.contains(line) && new.contains(line), "{line}\n{old}");
        }
        assert!(new.ends_with("# EOF\n") && !old.contains("# EOF"));
        #[cfg(target_os = "linux")]
        assert!(old.contains("process_cpu_seconds_total") && old.contains("process_resident_memory_bytes"), "{old}");
    }
}
