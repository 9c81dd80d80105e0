//! Every span, attribute and metric name, in one place.

use std::borrow::Cow;

/// Names of spans.
pub mod span {
    /// One block as one module sees it, from its first frame to its stored key. Parent of that module's stages.
    pub const BLOCK: &str = "qkd.block";
    /// The emission of the photons that a block is made of. Root of the block's trace.
    pub const EMIT: &str = "qkd.source.emit";
    /// The instrument turning photons into local time tags.
    pub const DETECT: &str = "qkd.detector.detect";
    /// Acquisition of the peer's clock.
    pub const ACQUIRE: &str = "qkd.acquire";
    /// Announcements, coincidences, basis comparison and estimation.
    pub const SIFT: &str = "qkd.sift";
    /// Error correction.
    pub const RECONCILE: &str = "qkd.reconcile";
    /// Comparison of universal hashes after error correction.
    pub const VERIFY: &str = "qkd.verify";
    /// Privacy amplification.
    pub const AMPLIFY: &str = "qkd.amplify";
    /// Wegman-Carter tags of the round, made and checked.
    pub const AUTHENTICATE: &str = "qkd.authenticate";
    /// The key becoming durable.
    pub const STORE: &str = "qkd.store";
    /// A key store takes a block from a module.
    pub const INGEST: &str = "qkd.kms.ingest";
    /// Keys are handed to a master SAE.
    pub const SUPPLY: &str = "qkd.kms.supply";
    /// Keys are handed to a slave SAE.
    pub const FETCH: &str = "qkd.kms.fetch";
    /// One key of a request.
    pub const KEY: &str = "qkd.kms.key";
    /// A key on its way is sealed for the next hop (Q.4163: key relay).
    pub const RELAY: &str = "qkd.kms.relay";
    /// One transfer of a relayed key at one site: at its origin from the first request to the decision, at the sites
    /// after it from its arrival to its departure or delivery. Each is the parent of the next site's.
    pub const TRANSFER: &str = "qkd.relay.transfer";
    /// A fault that was brought into one service, from its beginning to its end. Root of a trace.
    pub const FAULT: &str = "qkd.fault";
}

/// Names of attributes of spans and metrics.
pub mod attribute {
    /// Name of the link in the topology.
    pub const LINK_ID: &str = "qkd.link.id";
    /// Name of the site in the topology.
    pub const SITE_ID: &str = "qkd.site.id";
    /// Number of the block on its link.
    pub const BLOCK_ID: &str = "qkd.block.id";
    /// What became of the block: `stored`, `voided` or `aborted`.
    pub const BLOCK_OUTCOME: &str = "qkd.block.outcome";
    /// Number of the session on its link.
    pub const SESSION_ID: &str = "qkd.session.id";
    /// First epoch of the source's time that the span covers.
    pub const EPOCH_FIRST: &str = "qkd.epoch.first";
    /// Last epoch of the source's time that the span covers.
    pub const EPOCH_LAST: &str = "qkd.epoch.last";
    /// Photons sent or received.
    pub const PHOTONS: &str = "qkd.photons";
    /// Pairs of which both photons were sent.
    pub const PAIRS: &str = "qkd.pairs";
    /// Clicks recorded.
    pub const CLICKS: &str = "qkd.clicks";
    /// Error ratio of the key basis.
    pub const QBER_Z: &str = "qkd.qber.z";
    /// Error ratio of the check basis.
    pub const QBER_X: &str = "qkd.qber.x";
    /// Reconciliation efficiency: disclosed bits over the Shannon bound.
    pub const RECONCILE_EFFICIENCY: &str = "qkd.reconcile.efficiency";
    /// Length of the key in bits.
    pub const KEY_BITS: &str = "qkd.key.size_bits";
    /// Keys of one request.
    pub const KEY_COUNT: &str = "qkd.key.count";
    /// Hash of a key's ID.
    pub const KEY_FINGERPRINT: &str = "qkd.key.fingerprint";
    /// Of which bits of which block a part of a key is made; see [`numbered`].
    pub const KEY_PIECE: &str = "qkd.key.piece";
    /// The same of the one-time pad that a key was sealed under for the next site.
    pub const PAD_OUT_PIECE: &str = "qkd.pad.out.piece";
    /// The same of the pad that it came under.
    pub const PAD_IN_PIECE: &str = "qkd.pad.in.piece";
    /// Application that asked for keys.
    pub const SAE_MASTER: &str = "qkd.sae.master";
    /// Application that the keys are shared with.
    pub const SAE_SLAVE: &str = "qkd.sae.slave";
    /// Site at the other end of a pool.
    pub const PEER_SITE: &str = "qkd.peer.site";
    /// Site that a relayed key goes to next.
    pub const NEXT_SITE: &str = "qkd.next.site";
    /// Transfer of a relayed key.
    pub const TRANSFER_ID: &str = "qkd.transfer.id";
    /// The key that a transfer is a share of, and the block that it becomes.
    pub const GROUP_ID: &str = "qkd.transfer.group";
    /// What became of a transfer at a site: `forwarded`, `delivered`, `released`, `voided` or `refused`.
    pub const TRANSFER_OUTCOME: &str = "qkd.transfer.outcome";
    /// Key bytes of a transfer.
    pub const TRANSFER_BYTES: &str = "qkd.transfer.bytes";
    /// Sites of a transfer from origin to target, with commas between.
    pub const ROUTE_PATH: &str = "qkd.route.path";
    /// A fault that was brought in; in a span of light, all that act on it, with commas between.
    pub const FAULT_ID: &str = "qkd.fault.id";
    /// In one word: `cut`, `loss`, `clock-step`, `clock-stop`, `disk-full`, `partition`, `stop` or `attack`.
    pub const FAULT_KIND: &str = "qkd.fault.kind";
    /// For people.
    pub const FAULT_WHAT: &str = "qkd.fault.what";
    /// What every entry of a block's ledger starts with; see [`ledger`](super::ledger).
    pub const LEDGER_PREFIX: &str = "qkd.ledger.";

    /// The name of one of several values of an attribute; in the order of names they are in the order of values.
    pub fn numbered(attribute: &str, at: usize) -> String {
        format!("{attribute}.{at:03}")
    }
}

/// Attributes of the process, as the semantic conventions name them.
pub mod resource {
    pub const SERVICE_NAMESPACE: &str = "service.namespace";
    pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";
    pub const SERVICE_VERSION: &str = "service.version";
    /// Name of the topology.
    pub const TOPOLOGY: &str = "qkd.topology";
}

/// Names of metrics.
pub mod metric {
    /// Secret key rate over simulated time, bit/s.
    pub const LINK_SKR: &str = "qkd.link.skr";
    /// Error ratio of the key basis.
    pub const LINK_QBER_Z: &str = "qkd.link.qber.z";
    /// Error ratio of the check basis.
    pub const LINK_QBER_X: &str = "qkd.link.qber.x";
    /// Clicks per simulated second.
    pub const DETECTOR_CLICK_RATE: &str = "qkd.detector.click_rate";
    /// Offset of the peer's clock, ps.
    pub const CLOCK_OFFSET: &str = "qkd.clock.offset";
    /// Standard deviation of what clock tracking leaves, ps.
    pub const CLOCK_RESIDUAL: &str = "qkd.clock.residual";
    /// Blocks stored.
    pub const LINK_BLOCKS: &str = "qkd.link.blocks";
    /// Blocks voided: the round did not verify or a peer left.
    pub const LINK_BLOCKS_VOIDED: &str = "qkd.link.blocks_voided";
    /// Blocks aborted: the error ratio was above what the topology tolerates.
    pub const LINK_BLOCKS_ABORTED: &str = "qkd.link.blocks_aborted";
    /// Secret bits stored.
    pub const LINK_KEY_BITS: &str = "qkd.link.key_bits";
    /// Tags left in the authentication reserve.
    pub const CHANNEL_RESERVE_TAGS: &str = "qkd.channel.reserve_tags";
    /// Connections refused: wrong certificate, wrong name, no TLS 1.3.
    pub const SHELL_REFUSED: &str = "qkd.shell.connections_refused";
    /// Keys that a site originated and that arrived.
    pub const RELAY_RELAYED: &str = "qkd.relay.keys_relayed";
    /// Keys that a site originated and gave up.
    pub const RELAY_FAILED: &str = "qkd.relay.keys_failed";
    /// Simulated time, s.
    pub const SIMULATED_TIME: &str = "qkd.simulated_time";
    /// The one simulated time of a network's links, s.
    pub const NETWORK_TIME: &str = "qkd.network.time";
}

/// The metric of a figure of a link, by its name in the registry (`topology::figure`).
pub fn figure(name: &str) -> Cow<'static, str> {
    // Older than the registry; dashboards know them.
    let known = match name {
        "secretKeyRate" => metric::LINK_SKR,
        "qberZ" => metric::LINK_QBER_Z,
        "qberX" => metric::LINK_QBER_X,
        "clickRate" => metric::DETECTOR_CLICK_RATE,
        "clockOffset" => metric::CLOCK_OFFSET,
        "clockResidual" => metric::CLOCK_RESIDUAL,
        _ => {
            let mut metric = "qkd.link.".to_owned();
            for c in name.chars() {
                if c.is_ascii_uppercase() {
                    metric.push('_');
                }
                metric.push(c.to_ascii_lowercase());
            }
            return metric.into();
        }
    };
    known.into()
}

/// The attribute that carries one entry of a block's ledger.
pub fn ledger(entry: &str) -> String {
    format!("{}{entry}", attribute::LEDGER_PREFIX)
}
