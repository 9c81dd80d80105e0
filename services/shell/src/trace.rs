//! Trace context in gRPC metadata.

use telemetry::SpanContext;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

/// Says in the metadata of a call which span makes it.
pub fn inject(context: &SpanContext, metadata: &mut MetadataMap) {
    telemetry::trace::inject(context, |key, value| {
        if let Ok(value) = AsciiMetadataValue::try_from(value) {
            metadata.insert(key, value);
        }
    });
}

/// The span that made a call, if it says so and says it properly.
pub fn extract(metadata: &MetadataMap) -> Option<SpanContext> {
    telemetry::trace::extract(|key| metadata.get(key)?.to_str().ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_context_survives_the_way_and_nonsense_does_not() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = telemetry::trace::parse_traceparent(text).unwrap();
        let mut metadata = MetadataMap::new();
        inject(&context, &mut metadata);
        assert_eq!(extract(&metadata), Some(context));
        metadata.insert("traceparent", "00-nonsense".parse().unwrap());
        assert_eq!(extract(&metadata), None);
    }
}
