//! The page under construction: families of the exposition format from plain numbers.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as ProtoHistogram, LabelPair, Metric, MetricFamily,
    MetricType,
};

use crate::media::counters::Histogram;

/// The families written so far. Names are given without the prefix.
#[derive(Default)]
pub(super) struct Page {
    families: Vec<MetricFamily>,
}

impl Page {
    pub(super) fn into_families(self) -> Vec<MetricFamily> {
        self.families
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let metrics = vec![gauge(value as f64, Vec::new())];
        self.push(name, help, MetricType::GAUGE, metrics);
    }

    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        labels: (&str, &[&str]),
        values: &[u64],
    ) {
        let metrics = labelled(labels, values)
            .map(|(label, value)| gauge(value, label))
            .collect();
        self.push(name, help, MetricType::GAUGE, metrics);
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        let metrics = vec![counter(value as f64, Vec::new())];
        self.push(name, help, MetricType::COUNTER, metrics);
    }

    pub(super) fn counters(
        &mut self,
        name: &str,
        help: &str,
        labels: (&str, &[&str]),
        values: &[u64],
    ) {
        let metrics = labelled(labels, values)
            .map(|(label, value)| counter(value, label))
            .collect();
        self.push(name, help, MetricType::COUNTER, metrics);
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        let buckets = histogram.cumulative().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut proto = ProtoHistogram::default();
        proto.set_bucket(buckets.collect());
        proto.set_sample_count(histogram.count());
        proto.set_sample_sum(histogram.sum());
        let mut metric = Metric::default();
        metric.set_histogram(proto);
        self.push(name, help, MetricType::HISTOGRAM, vec![metric]);
    }

    pub(super) fn push(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(format!("stellwerk_{name}"));
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.families.push(family);
    }
}

fn labelled<'a>(
    (name, texts): (&'a str, &'a [&'a str]),
    values: &'a [u64],
) -> impl Iterator<Item = (Vec<LabelPair>, f64)> + 'a {
    debug_assert_eq!(texts.len(), values.len());
    let pairs = texts.iter().zip(values);
    pairs.map(move |(text, value)| (vec![label(name, text)], *value as f64))
}

pub(super) fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

pub(super) fn gauge(value: f64, labels: Vec<LabelPair>) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

fn counter(value: f64, labels: Vec<LabelPair>) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}
