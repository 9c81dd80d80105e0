//! The latest value of every metric that was received, as Prometheus reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint};
use tokio::time::Instant;

use super::{Origin, attribute};

/// Values of a process that has said nothing for so long are of the past.
const KEPT: Duration = Duration::from_secs(300);
/// Series beyond this are not taken.
const SERIES_LIMIT: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Values {
    families: Mutex<BTreeMap<String, Family>>,
}

#[derive(Debug)]
struct Family {
    counter: bool,
    help: String,
    /// By the text of the labels.
    series: BTreeMap<String, (f64, Instant)>,
}

impl Values {
    /// Takes gauges and sums; there is nothing else among this program's metrics.
    pub(super) fn take(&self, origin: &Origin, service: &str, metric: &Metric) {
        let (points, counter) = match &metric.data {
            Some(Data::Gauge(gauge)) => (&gauge.data_points, false),
            Some(Data::Sum(sum)) => (&sum.data_points, sum.is_monotonic),
            _ => return,
        };
        let suffix = if counter { "_total" } else { "" };
        let name = format!("{}{suffix}", identifier(&metric.name));
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: usize = families.values().map(|family| family.series.len()).sum();
        if taken + points.len() > SERIES_LIMIT {
            drop(families);
            self.forget();
            return;
        }
        let help =
            if metric.unit.is_empty() { metric.name.clone() } else { format!("{}, {}", metric.name, metric.unit) };
        let family = families.entry(name).or_insert_with(|| Family { counter, help, series: BTreeMap::new() });
        for point in points {
            if let Some(value) = value(point) {
                family.series.insert(labels(origin, service, point), (value, Instant::now()));
            }
        }
    }

    fn forget(&self) {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        for family in families.values_mut() {
            family.series.retain(|_, (_, at)| at.elapsed() < KEPT);
        }
        families.retain(|_, family| !family.series.is_empty());
    }

    pub(super) fn exposition(&self) -> String {
        self.forget();
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (name, family) in families.iter() {
            let kind = if family.counter { "counter" } else { "gauge" };
            let _ = write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n", escaped(&family.help));
            for (labels, (value, _)) in &family.series {
                let _ = writeln!(text, "{name}{{{labels}}} {value}");
            }
        }
        text
    }
}

fn value(point: &NumberDataPoint) -> Option<f64> {
    match point.value? {
        Number::AsDouble(value) => Some(value),
        Number::AsInt(value) => Some(value as f64),
    }
}

fn labels(origin: &Origin, service: &str, point: &NumberDataPoint) -> String {
    let own = [("topology", &origin.topology), ("instance", &origin.instance)];
    let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
    let said = point
        .attributes
        .iter()
        .map(attribute)
        .map(|(name, value)| (identifier(&name), value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
    let labels: BTreeMap<String, String> =
        std::iter::once(("service".to_owned(), service.to_owned())).chain(own).chain(said).collect();
    let label = |(name, value): (&String, &String)| format!("{name}=\"{}\"", escaped(value));
    labels.iter().map(label).collect::<Vec<_>>().join(",")
}

/// A name as Prometheus takes it: `qkd.link.skr` is `qkd_link_skr`.
fn identifier(name: &str) -> String {
    let mut text: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if text.is_empty() || text.starts_with(|c: char| c.is_ascii_digit()) {
        text.insert(0, '_');
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::metrics::v1::{Gauge, Sum};

    use super::*;

    fn point(value: f64) -> NumberDataPoint {
        NumberDataPoint { value: Some(Number::AsDouble(value)), ..NumberDataPoint::default() }
    }

    fn gauge(name: &str, value: f64) -> Metric {
        let data = Some(Data::Gauge(Gauge { data_points: vec![point(value)] }));
        Metric { name: name.to_owned(), unit: "bit/s".to_owned(), data, ..Metric::default() }
    }

    #[test]
    fn the_latest_value_of_each_process_is_told() {
        let values = Values::default();
        let origin = |instance: &str| Origin { topology: Some("nice".to_owned()), instance: Some(instance.to_owned()) };
        values.take(&origin("a"), "detector", &gauge("qkd.link.skr", 1.0));
        values.take(&origin("a"), "detector", &gauge("qkd.link.skr", 7069.5));
        values.take(&origin("b\"\n"), "detector", &gauge("qkd.link.skr", 2.0));
        let sum = Sum { data_points: vec![point(3.0)], is_monotonic: true, ..Sum::default() };
        let counter = Metric { name: "qkd.count".to_owned(), data: Some(Data::Sum(sum)), ..Metric::default() };
        values.take(&Origin::default(), "relay", &counter);
        assert_eq!(
            values.exposition(),
            "# HELP qkd_count_total qkd.count\n# TYPE qkd_count_total counter\nqkd_count_total{service=\"relay\"} 3\n\
             # HELP qkd_link_skr qkd.link.skr, bit/s\n# TYPE qkd_link_skr gauge\n\
             qkd_link_skr{instance=\"a\",service=\"detector\",topology=\"nice\"} 7069.5\n\
             qkd_link_skr{instance=\"b\\\"\\n\",service=\"detector\",topology=\"nice\"} 2\n"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_has_ended_is_forgotten() {
        let values = Values::default();
        values.take(&Origin::default(), "detector", &gauge("qkd.link.skr", 1.0));
        tokio::time::advance(KEPT / 2).await;
        assert!(!values.exposition().is_empty());
        tokio::time::advance(KEPT).await;
        assert_eq!(values.exposition(), "");
    }
}
