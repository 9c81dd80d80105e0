//! Who may call what: every RPC of every service, and the roles whose holders may call it.
//!
//! A [`Server`](crate::Server) asks this table before any handler sees a request, and does not start with an RPC that
//! has no entry. Which identity holds a role follows from a service's configuration and stands on its
//! [`AllowList`](crate::AllowList), so that it can change while the service runs. `docs/authority.md` is printed from here.

mod guard;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prost::Message as _;
use prost_types::FileDescriptorSet;

pub(crate) use guard::Guard;

use Role::{Anyone, Control, KeyStore, Module, Neighbour, PeerChannel, Relay, Source};

/// What a caller is to the service that it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Every peer that may connect.
    Anyone,
    /// The command line and the operator.
    Control,
    /// The modules that a source, a channel or a key store serves.
    Module,
    /// The channel at the other end of the link.
    PeerChannel,
    /// The key store of another site.
    KeyStore,
    /// The relay of the same site.
    Relay,
    /// The relay at the other end of a link.
    Neighbour,
    /// The sources of the network.
    Source,
}

impl Role {
    pub const ALL: [Role; 8] = [Anyone, Control, Module, PeerChannel, KeyStore, Relay, Neighbour, Source];

    pub fn name(self) -> &'static str {
        match self {
            Anyone => "every peer",
            Control => "control",
            Module => "own module",
            PeerChannel => "peer channel",
            KeyStore => "peer key store",
            Relay => "own relay",
            Neighbour => "neighbour relay",
            Source => "own source",
        }
    }

    /// Whose certificates hold the role.
    fn holders(self) -> &'static str {
        match self {
            Anyone => "every service of the plan that connects to this one, and `control`",
            Control => "`control`: the command line, and the operator on a cluster",
            Module => {
                "of a source the two modules at its outputs (detectors, or a transmitter and a detector), each for its \
                 own output; of a channel the module that it serves; of a key store the modules of its site, each for \
                 the blocks of its own link"
            }
            PeerChannel => "the channel at the other end of the link, where that end connects",
            KeyStore => {
                "key stores of the sites that share a pool with this one, where they connect, each for its own pool"
            }
            Relay => "the relay of the same site",
            Source => "the sources that a pacer keeps at one time, each for its own link",
            Neighbour => "relays at the other ends of this site's links, where they connect, each for its own site",
        }
    }
}

/// An RPC and who may call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Full name of the service, such as `qkdnet.channel.v1.Channel`.
    pub service: &'static str,
    pub method: &'static str,
    /// Any one of these will do.
    pub roles: &'static [Role],
}

const fn may(service: &'static str, method: &'static str, roles: &'static [Role]) -> Entry {
    Entry { service, method, roles }
}

/// The table. A new RPC gets its line here, or the service that offers it does not start.
pub const TABLE: &[Entry] = &[
    may("qkdnet.source.v1.Source", "Attach", &[Module]),
    may("qkdnet.source.v1.Source", "GetStatus", &[Control]),
    may("qkdnet.source.v1.Source", "SetLoss", &[Control]),
    may("qkdnet.detector.v1.Detector", "GetStatus", &[Control]),
    may("qkdnet.detector.v1.Detector", "Watch", &[Control]),
    may("qkdnet.detector.v1.Detector", "Recover", &[Control]),
    may("qkdnet.channel.v1.Channel", "Attach", &[Module]),
    may("qkdnet.channel.v1.Channel", "Peer", &[PeerChannel]),
    may("qkdnet.channel.v1.Channel", "GetStatus", &[Control]),
    may("qkdnet.channel.v1.Reserve", "Refill", &[Control]),
    may("qkdnet.kms.v1.Kms", "Deliver", &[Module]),
    may("qkdnet.kms.v1.Kms", "Relay", &[Relay]),
    may("qkdnet.kms.v1.Kms", "GetStatus", &[Control]),
    may("qkdnet.kms.v1.Kms", "SetNetwork", &[Control]),
    may("qkdnet.kms.v1.KmsPeer", "Pair", &[KeyStore]),
    may("qkdnet.relay.v1.Relay", "Neighbour", &[Neighbour]),
    may("qkdnet.relay.v1.Relay", "GetStatus", &[Control]),
    may("qkdnet.relay.v1.Relay", "ListTransfers", &[Control]),
    may("qkdnet.relay.v1.Relay", "SetTargets", &[Control]),
    may("qkdnet.pace.v1.Pacer", "Keep", &[Source]),
    may("qkdnet.pace.v1.Pacer", "GetStatus", &[Control]),
    may("qkdnet.pace.v1.Pacer", "SetLinks", &[Control]),
    may("qkdnet.anchor.v1.Anchor", "Exchange", &[Control]),
    may("qkdnet.fault.v1.Faults", "Inject", &[Control]),
    may("qkdnet.fault.v1.Faults", "Clear", &[Control]),
    may("qkdnet.fault.v1.Faults", "List", &[Control]),
    may("qkdnet.fault.v1.Faults", "Watch", &[Control]),
    may("grpc.health.v1.Health", "Check", &[Anyone]),
    may("grpc.health.v1.Health", "Watch", &[Anyone]),
    may("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo", &[Anyone]),
];

/// An RPC that would be served without a word on who may call it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Uncovered {
    #[error("the table of authority does not say who may call {service}/{method}")]
    Method { service: String, method: String },
    #[error("the service {0} is in no descriptor set, so its RPCs are not known")]
    Service(String),
    #[error("the descriptors of the services cannot be read: {0}")]
    Descriptors(String),
}

/// The entry of a request's path, `/service/method`.
pub fn entry(path: &str) -> Option<&'static Entry> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    find(TABLE, service, method)
}

fn find<'t>(table: &'t [Entry], service: &str, method: &str) -> Option<&'t Entry> {
    table.iter().find(|entry| entry.service == service && entry.method == method)
}

/// Every RPC that the descriptors of this program know, by service.
pub fn described() -> Result<BTreeMap<String, Vec<String>>, Uncovered> {
    let sets =
        [proto::DESCRIPTOR, tonic_health::pb::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET];
    let mut services = BTreeMap::new();
    for set in sets {
        let set = FileDescriptorSet::decode(set).map_err(|error| Uncovered::Descriptors(error.to_string()))?;
        for file in &set.file {
            for service in &file.service {
                let methods = service.method.iter().map(|method| method.name().to_owned()).collect();
                services.insert(format!("{}.{}", file.package(), service.name()), methods);
            }
        }
    }
    Ok(services)
}

/// Refuses services of which an RPC has no entry.
pub fn check<'n>(served: impl IntoIterator<Item = &'n str>) -> Result<(), Uncovered> {
    check_against(TABLE, served)
}

fn check_against<'n>(table: &[Entry], served: impl IntoIterator<Item = &'n str>) -> Result<(), Uncovered> {
    let described = described()?;
    for service in served {
        let methods = described.get(service).ok_or_else(|| Uncovered::Service(service.to_owned()))?;
        if let Some(method) = methods.iter().find(|method| find(table, service, method).is_none()) {
            return Err(Uncovered::Method { service: service.to_owned(), method: method.clone() });
        }
    }
    Ok(())
}

/// The table and its roles as Markdown, for the documentation.
pub fn markdown() -> String {
    let mut text = String::from("| Service | RPC | Who may call it |\n|---|---|---|\n");
    for Entry { service, method, roles } in TABLE {
        let roles: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| `{service}` | `{method}` | {} |", roles.join(", "));
    }
    text.push_str("\n| Who | Certificates |\n|---|---|\n");
    for role in Role::ALL {
        let _ = writeln!(text, "| {} | {} |", role.name(), role.holders());
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_rpc_that_is_described_has_one_entry_and_no_entry_is_without_its_rpc() {
        let described: Vec<(String, String)> = described()
            .unwrap()
            .into_iter()
            .flat_map(|(service, methods)| methods.into_iter().map(move |method| (service.clone(), method)))
            .collect();
        let mut entries: Vec<(String, String)> =
            TABLE.iter().map(|entry| (entry.service.to_owned(), entry.method.to_owned())).collect();
        entries.sort();
        let mut sorted = described.clone();
        sorted.sort();
        assert_eq!(entries, sorted);
        assert!(TABLE.iter().all(|entry| !entry.roles.is_empty()));
        let services: Vec<&str> = TABLE.iter().map(|entry| entry.service).collect();
        assert_eq!(check(services), Ok(()));
    }

    #[test]
    fn a_service_without_descriptor_is_refused() {
        assert_eq!(check(["qkdnet.unknown.v1.Thing"]), Err(Uncovered::Service("qkdnet.unknown.v1.Thing".to_owned())));
    }

    #[test]
    fn a_service_of_which_one_rpc_has_no_entry_is_refused() {
        let without: Vec<Entry> = TABLE.iter().copied().filter(|entry| entry.method != "Peer").collect();
        let served = ["qkdnet.channel.v1.Reserve", "qkdnet.channel.v1.Channel"];
        let (service, method) = (served[1].to_owned(), "Peer".to_owned());
        assert_eq!(check_against(&without, served), Err(Uncovered::Method { service, method }));
        assert_eq!(check_against(TABLE, served), Ok(()));
    }

    #[test]
    fn a_path_is_taken_as_it_stands_or_not_at_all() {
        assert_eq!(entry("/qkdnet.channel.v1.Reserve/Refill").unwrap().roles, [Control]);
        for path in [
            "",
            "/",
            "qkdnet.channel.v1.Reserve/Refill",
            "/qkdnet.channel.v1.Reserve/refill",
            "/qkdnet.channel.v1.Reserve/Refill/",
            "//qkdnet.channel.v1.Reserve/Refill",
            "/qkdnet.channel.v1.Reserve/%52efill",
            "/qkdnet.channel.v1.Reserve",
        ] {
            assert_eq!(entry(path), None, "{path}");
        }
    }

    /// `INSTA_UPDATE=always` writes the page, as it does for other golden files.
    #[test]
    fn the_documentation_prints_this_table() {
        const BEGIN: &str = "<!-- printed from services/shell/src/authority.rs -->\n\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/authority.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (words, _) = page.split_once(BEGIN).expect("the mark after which the table is printed");
        let right = format!("{words}{BEGIN}{}", markdown());
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            std::fs::write(path, &right).unwrap();
        } else {
            assert_eq!(page, right, "docs/authority.md is stale: run this test with INSTA_UPDATE=always");
        }
    }
}
