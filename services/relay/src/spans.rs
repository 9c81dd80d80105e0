//! A span for every transfer at every site that it passes.

use std::collections::{BTreeMap, VecDeque};

use telemetry::names::{attribute, span};
use telemetry::trace::{Span, Tracer};
use transfer::{Header, TransferId};

/// Spans that are open at a time; the oldest is ended where there are more.
const OPEN_MAX: usize = 4096;

pub struct Spans {
    tracer: Tracer,
    site: String,
    open: BTreeMap<TransferId, Span>,
    order: VecDeque<TransferId>,
}

impl Spans {
    pub fn new(service: &str, site: &str) -> Self {
        let tracer = Tracer::new(service);
        Self { tracer, site: site.to_owned(), open: BTreeMap::new(), order: VecDeque::new() }
    }

    /// Begins the span of a transfer, unless there is one.
    pub fn begin(&mut self, header: &Header, parent: &str) {
        if self.open.contains_key(&header.transfer) {
            return;
        }
        let path: Vec<&str> = header.path.sites().iter().map(transfer::SiteName::as_str).collect();
        let span = self
            .tracer
            .span(span::TRANSFER)
            .parent_from(parent)
            .attribute(attribute::SITE_ID, self.site.as_str())
            .attribute(attribute::TRANSFER_ID, header.transfer.to_string())
            .attribute(attribute::GROUP_ID, header.group.to_string())
            .attribute(attribute::ROUTE_PATH, path.join(","))
            .attribute(attribute::TRANSFER_BYTES, header.bytes)
            .start();
        self.open.insert(header.transfer, span);
        self.order.push_back(header.transfer);
        while self.open.len() > OPEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.open.remove(&oldest);
        }
        if self.order.len() > 2 * OPEN_MAX {
            self.order.retain(|transfer| self.open.contains_key(transfer));
        }
    }

    /// What others name as the parent; empty where there is nothing to name.
    pub fn traceparent(&self, transfer: TransferId) -> String {
        self.open.get(&transfer).map(Span::traceparent).unwrap_or_default()
    }

    pub fn end(&mut self, transfer: TransferId, outcome: &'static str) {
        if let Some(mut span) = self.open.remove(&transfer) {
            span.set(attribute::TRANSFER_OUTCOME, outcome);
            match outcome {
                "voided" | "refused" => span.fail(outcome),
                _ => span.succeed(),
            }
            span.end();
        }
    }
}
