//! What qkdnet tells about itself: traces, metrics and logs, and the names they carry.
//!
//! [`init()`] once per process installs logging and one tracer and one meter provider; each service, be it a process
//! or a task, then opens its own [`trace::Tracer`]. Spans go to an OpenTelemetry collector where the standard
//! `OTEL_EXPORTER_OTLP_*` variables name one, otherwise into span files that [`store`] reads back as trees.
//!
//! Everything that can be attached to a span or metric is a number, a flag or a short string
//! ([`trace::Figure`]): there is no way to hand bytes over, so that key has no way in.
//!
//! ```
//! use telemetry::{names, trace::Tracer};
//!
//! let tracer = Tracer::new("detector-nice-50-a");
//! let mut block = tracer.span(names::span::BLOCK).attribute(names::attribute::BLOCK_ID, 7_u64).start();
//! let sift = tracer.span(names::span::SIFT).parent(&block.context()).start();
//! sift.end();
//! block.set(&names::ledger("sifted"), 4096_u64);
//! let carried_to_the_peer = block.traceparent();
//! assert!(telemetry::trace::parse_traceparent(&carried_to_the_peer).is_some() || !block.is_recording());
//! ```

mod collector;
pub mod export;
mod http;
mod init;
mod losses;
pub mod metrics;
pub mod names;
pub mod receive;
pub mod render;
mod settings;
pub mod store;
pub mod trace;

pub use init::{Guard, LogFormat, TelemetryConfig, TelemetryError, init};
pub use opentelemetry::trace::SpanContext;
