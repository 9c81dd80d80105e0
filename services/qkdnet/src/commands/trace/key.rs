//! What a key is made of, at both ends, in a few lines above its traces.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use telemetry::names::{attribute, span};
use telemetry::store::{SpanRecord, Trace};

/// Deliveries of a key with the origin of every bit, then the pads under which its relayed parts travelled.
pub fn describe(traces: &[Trace], fingerprint: &str) -> String {
    let epochs = epochs(traces);
    let mut text = String::new();
    for trace in traces {
        for key in trace.spans().iter().filter(|span| span.text(attribute::KEY_FINGERPRINT) == Some(fingerprint)) {
            let request = trace.spans().iter().find(|span| Some(&span.span) == key.parent.as_ref());
            delivery(&mut text, key, request, &epochs);
        }
    }
    let transfers = traces.iter().flat_map(Trace::spans).filter(|span| span.name == span::RELAY);
    for transfer in transfers {
        hop(&mut text, transfer, &epochs);
    }
    text
}

fn delivery(text: &mut String, key: &SpanRecord, request: Option<&SpanRecord>, epochs: &Epochs) {
    let site = key.text(attribute::SITE_ID).unwrap_or_default();
    let sae = |name| request.and_then(|request| request.text(name)).unwrap_or("?");
    let (master, slave) = (sae(attribute::SAE_MASTER), sae(attribute::SAE_SLAVE));
    let what = match request.map(|request| request.name.as_str()) {
        Some(span::SUPPLY) => format!("supplied to {master} for {slave}"),
        Some(span::FETCH) => format!("fetched by {slave} from {master}"),
        _ => "delivered".to_owned(),
    };
    let _ = writeln!(text, "{site}: {what}, {} bit", key.integer(attribute::KEY_BITS).unwrap_or(0));
    pieces(text, "  ", &key.texts(attribute::KEY_PIECE), epochs);
}

fn hop(text: &mut String, transfer: &SpanRecord, epochs: &Epochs) {
    let id = transfer.text(attribute::TRANSFER_ID).unwrap_or_default();
    let _ = writeln!(text, "{}: transfer {id}", transfer.service);
    for (site, way, pad) in [
        (attribute::PEER_SITE, "opened from", attribute::PAD_IN_PIECE),
        (attribute::NEXT_SITE, "sealed for", attribute::PAD_OUT_PIECE),
    ] {
        let used = transfer.texts(pad);
        if let (Some(site), false) = (transfer.text(site), used.is_empty()) {
            let _ = writeln!(text, "  {way} {site} under a pad of");
            pieces(text, "    ", &used, epochs);
        }
    }
}

fn pieces(text: &mut String, indent: &str, pieces: &[&str], epochs: &Epochs) {
    for piece in pieces {
        let block = epochs.iter().find(|(block, _)| piece.contains(block.as_str()));
        let emitted = block.map(|(_, (first, last))| format!(", light of epochs {first} to {last}"));
        let _ = writeln!(text, "{indent}{piece}{}", emitted.unwrap_or_default());
    }
}

/// By `link L block N epoch`, as pieces of keys begin: epochs of the light that the block is made of.
type Epochs = BTreeMap<String, (i64, i64)>;

fn epochs(traces: &[Trace]) -> Epochs {
    let mut epochs = Epochs::new();
    for trace in traces {
        let emission = trace.spans().iter().find(|span| span.name == span::EMIT);
        let Some(first) = emission.and_then(|span| span.integer(attribute::EPOCH_FIRST)) else { continue };
        let last = emission.and_then(|span| span.integer(attribute::EPOCH_LAST)).unwrap_or(first);
        for block in trace.spans().iter().filter(|span| span.name == span::BLOCK) {
            if let (Some(link), Some(number)) = (block.text(attribute::LINK_ID), block.integer(attribute::BLOCK_ID)) {
                epochs.insert(format!("link {link} block {number} epoch "), (first, last));
            }
        }
    }
    epochs
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use telemetry::store::StatusRecord;

    use super::*;

    fn span(name: &str, id: &str, parent: Option<&str>, attributes: Value) -> SpanRecord {
        let attributes = attributes.as_object().expect("an object").clone().into_iter().collect();
        SpanRecord {
            trace: "t".to_owned(),
            span: id.to_owned(),
            parent: parent.map(str::to_owned),
            name: name.to_owned(),
            service: "kms-b".to_owned(),
            kind: String::new(),
            start_ns: 0,
            end_ns: 1,
            attributes,
            events: vec![],
            links: vec![],
            status: StatusRecord::Ok,
        }
    }

    #[test]
    fn both_deliveries_and_every_hop_say_what_their_bits_are_made_of() {
        let piece = "bits 0..256: link a-b block 3 epoch 250";
        let deliveries = Trace::new(vec![
            span("qkd.kms.supply", "1", None, json!({"qkd.sae.master": "m", "qkd.sae.slave": "s"})),
            span(
                "qkd.kms.key",
                "2",
                Some("1"),
                json!({"qkd.site.id": "a", "qkd.key.fingerprint": "f", "qkd.key.size_bits": 256, "qkd.key.piece.000": piece}),
            ),
            span("qkd.kms.key", "3", None, json!({"qkd.key.fingerprint": "another"})),
            span(
                "qkd.kms.relay",
                "4",
                None,
                json!({"qkd.transfer.id": "x", "qkd.next.site": "c", "qkd.pad.out.piece.000": piece}),
            ),
        ]);
        let block = Trace::new(vec![
            span("qkd.source.emit", "5", None, json!({"qkd.epoch.first": 150, "qkd.epoch.last": 199})),
            span("qkd.block", "6", Some("5"), json!({"qkd.link.id": "a-b", "qkd.block.id": 3})),
        ]);
        let text = describe(&[deliveries, block], "f");
        let lines: Vec<&str> = text.lines().collect();
        let made_of = "bits 0..256: link a-b block 3 epoch 250, light of epochs 150 to 199";
        assert!(lines[0].starts_with("a: supplied to m for s, "), "{text}");
        assert_eq!(lines[1], format!("  {made_of}"));
        assert_eq!(lines[2..4], ["kms-b: transfer x", "  sealed for c under a pad of"]);
        assert_eq!(lines[4], format!("    {made_of}"));
        assert_eq!(lines.len(), 5, "{text}");
    }
}
