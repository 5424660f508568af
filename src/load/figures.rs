//! How figures of the report are written, as JSON and as text.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::histogram::Histogram;
use super::picture::LAYERS;
use super::tally::Second;

/// Of `whole`, 0 to 1.
pub fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// In milliseconds, to a microsecond.
pub fn millis(span: Option<Duration>) -> Value {
    span.map_or(Value::Null, |span| json!(span.as_micros() as f64 / 1000.0))
}

/// The same as text.
pub fn millis_text(span: Option<Duration>) -> String {
    span.map_or_else(
        || "-".to_owned(),
        |span| format!("{:.2} ms", span.as_secs_f64() * 1000.0),
    )
}

/// Of one step of joins.
pub fn join_json(histogram: &Histogram) -> Value {
    json!({
        "count": histogram.count(),
        "p50": millis(histogram.percentile(0.5)),
        "p99": millis(histogram.percentile(0.99)),
    })
}

/// How many pictures came in each layer.
pub fn layers_json(second: &Second) -> Value {
    let layers = LAYERS.iter().zip(second.layers);
    let mut layers: Map<String, Value> = layers
        .map(|(layer, count)| (layer.rid.to_owned(), json!(count)))
        .collect();
    layers.insert("none".to_owned(), json!(second.silent));
    Value::Object(layers)
}

/// The same as text.
pub fn layers_text(second: &Second) -> String {
    let layers = LAYERS.iter().zip(second.layers);
    let layers = layers.map(|(layer, count)| format!("{count} {}", layer.rid));
    let layers = layers.collect::<Vec<_>>().join("  ");
    format!("{layers}  {} none", second.silent)
}

/// A line of the report.
pub fn second_json(second: &Second) -> Value {
    json!({
        "sent": second.sent,
        "received": second.received,
        "expected": second.counts.expected,
        "lost": second.counts.lost,
        "p50_ms": millis(second.p50),
        "p99_ms": millis(second.p99),
        "layers": layers_json(second),
    })
}
