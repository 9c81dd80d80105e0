//! Every RPC of every service of a plan, called with every certificate of it, against the table of authority.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proto::channel::v1::channel_client::ChannelClient;
use proto::channel::v1::reserve_client::ReserveClient;
use proto::channel::v1::{GetStatusRequest, GetStatusResponse, ModuleMessage, RefillRequest};
use proto::kms::v1::Block;
use proto::kms::v1::kms_client::KmsClient;
use proto::source::v1::source_client::SourceClient;
use proto::source::v1::{AnalyserUpdate, AttachOutput, analyser_update};
use rustls::version::TLS13;
use serde_yaml::Value;
use shell::authority::{self, Entry, Role};
use shell::pki::{Authority, Issued};
use shell::{Connector, Credentials, Endpoint};
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Channel;

use super::{PATIENCE, Port, Visitor, configurations};
use crate::keys::{Network, eventually};
use crate::support::{Place, bright_network};

/// What a service's configuration says of it, as the documentation describes its roles.
struct Callee(Value);

impl Callee {
    fn text(&self, key: &str) -> BTreeSet<String> {
        self.0[key].as_str().map(str::to_owned).into_iter().collect()
    }

    fn services(&self, key: &str) -> BTreeSet<String> {
        let listed = self.0[key].as_sequence().into_iter().flatten();
        listed.filter_map(|item| item["service"].as_str().map(str::to_owned)).collect()
    }

    fn name(&self) -> &str {
        self.0["name"].as_str().expect("a name")
    }

    fn kind(&self) -> &str {
        self.name().split('-').next().expect("a kind")
    }

    fn accepts(&self) -> BTreeSet<String> {
        let accepts = self.0["accepts"].as_sequence().expect("peers").iter();
        accepts.filter_map(|peer| peer.as_str().map(str::to_owned)).collect()
    }

    fn holders(&self, role: Role) -> BTreeSet<String> {
        match (role, self.kind()) {
            (Role::Anyone, _) => self.accepts(),
            (Role::Control, _) => BTreeSet::from(["control".to_owned()]),
            (Role::Module, "source") => {
                let link = self.0["link"].as_str().expect("a link");
                let sites = link.split('-');
                sites.map(|site| format!("detector-{link}-{site}")).collect()
            }
            (Role::Module, "channel") => self.text("module"),
            (Role::Module, "kms") => self.services("modules"),
            (Role::PeerChannel, "channel") => self.text("peer"),
            (Role::KeyStore, "kms") => self.services("peers"),
            (Role::Relay, "kms") => self.text("relay"),
            (Role::Neighbour, "relay") => self.services("neighbours"),
            (Role::Source, "pacer") => self.services("sources"),
            _ => BTreeSet::new(),
        }
    }

    fn may(&self, caller: &str, entry: &Entry) -> bool {
        let holds = |role: &Role| self.holders(*role).contains(caller);
        self.accepts().contains(caller) && entry.roles.iter().any(holds)
    }

    /// Whether the service offers the call at all.
    fn offers(&self, entry: &Entry) -> bool {
        let own: &[&str] = match self.kind() {
            "source" => &["qkdnet.source.v1.Source"],
            "detector" | "transmitter" => &["qkdnet.detector.v1.Detector"],
            "channel" => &["qkdnet.channel.v1.Channel", "qkdnet.channel.v1.Reserve"],
            "kms" => &["qkdnet.kms.v1.Kms", "qkdnet.kms.v1.KmsPeer"],
            "relay" => &["qkdnet.relay.v1.Relay"],
            "pacer" => &["qkdnet.pace.v1.Pacer"],
            kind => panic!("what does a {kind} offer?"),
        };
        let common = ["qkdnet.fault.v1.Faults", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];
        own.contains(&entry.service) || common.contains(&entry.service)
    }
}

/// Calls with one empty message. Only an answer to the headers counts: who may call gets one, whatever it is.
async fn call(channel: &Channel, entry: &Entry) -> Code {
    let path = format!("/{}/{}", entry.service, entry.method).parse().expect("a path");
    let asked = async {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.expect("a connection");
        let request = tonic::Request::new(tokio_stream::once(()));
        grpc.streaming(request, path, tonic_prost::ProstCodec::<(), ()>::default()).await
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("no answer to {entry:?}"));
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

struct Caller<'a> {
    runtime: &'a Runtime,
    authority: &'a Authority,
    run: &'a Path,
}

impl Caller<'_> {
    fn connect(&self, issued: &Issued, callee: &str) -> Channel {
        let authority = self.authority.certificate_pem();
        let credentials = Credentials::from_pem(authority, &issued.certificate_pem, &issued.key_pem).expect("usable");
        let connector = Connector::new(&Endpoint::in_run_dir(self.run, callee), callee, &credentials);
        self.runtime.block_on(connector.deadline(PATIENCE).connect()).expect("connect")
    }

    fn issue(&self, name: &str) -> Issued {
        self.authority.issue(name).expect("a certificate")
    }

    fn channel_status(&self, channel: &str) -> GetStatusResponse {
        let mut client = ChannelClient::new(self.connect(&self.issue("control"), channel));
        self.runtime.block_on(client.get_status(GetStatusRequest {})).expect("a status").into_inner()
    }

    /// Tries what would hand the link to the caller: the module's place, and a reserve of its own choice.
    fn seize(&self, channel: &str, caller: &str) -> (Code, Code) {
        let connection = self.connect(&self.issue(caller), channel);
        let (mut reserve, mut client) = (ReserveClient::new(connection.clone()), ChannelClient::new(connection));
        let request = RefillRequest { secret: vec![7; 512].into(), generation: 0 };
        let refill = self.runtime.block_on(reserve.refill(request)).map_or_else(|status| status.code(), |_| Code::Ok);
        let attach = client.attach(tokio_stream::pending::<ModuleMessage>());
        let attach = self.runtime.block_on(attach).map_or_else(|status| status.code(), |_| Code::Ok);
        (refill, attach)
    }
}

/// How a stream ends, whatever comes before.
async fn end<T>(mut answers: tonic::Streaming<T>) -> Code {
    let ended = async {
        loop {
            match answers.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Code::Ok,
                Err(status) => return status.code(),
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("a stream without end")
}

impl Caller<'_> {
    /// Attaches to a source as one of its outputs.
    fn attach(&self, detector: &str, source: &str, output: u32) -> Code {
        let mut client = SourceClient::new(self.connect(&self.issue(detector), source));
        let hello = AttachOutput { output, session: u64::MAX, ..AttachOutput::default() };
        let hello = AnalyserUpdate { update: Some(analyser_update::Update::Attach(hello)) };
        self.runtime.block_on(async {
            let updates = tokio_stream::once(hello).chain(tokio_stream::pending());
            end(client.attach(updates).await.expect("a stream").into_inner()).await
        })
    }

    /// Delivers a block of a link.
    fn deliver(&self, detector: &str, store: &str, link: &str) -> Code {
        let mut client = KmsClient::new(self.connect(&self.issue(detector), store));
        let block = Block { link: link.to_owned(), ..Block::default() };
        self.runtime.block_on(async {
            let blocks = tokio_stream::once(block).chain(tokio_stream::pending());
            end(client.deliver(blocks).await.expect("a stream").into_inner()).await
        })
    }
}

#[test]
fn every_call_is_answered_to_whom_the_table_gives_it_and_refused_to_everybody_else() {
    // With faults allowed every service that there is can be called.
    let text = bright_network().replacen("  sites:\n", "  faults: {allowed: true}\n  sites:\n", 1);
    let place = Place::new(&text);
    let network = Network::start_with(&place, "process", |command| {
        command.args(["--speed", "1"]);
    });
    eventually("key flows", || network.status().filter(|status| status["ready"] == true)).expect("a network");
    let data = place.path("data");
    let (pki, run) = (data.join(".qkdnet/pki"), data.join(".qkdnet/run"));
    let authority = Authority::load(&pki).expect("the authority");
    let runtime = Runtime::new().expect("a runtime");
    let caller = Caller { runtime: &runtime, authority: &authority, run: &run };
    let callees: Vec<Callee> = configurations(&run).into_iter().map(Callee).collect();

    // First what was found: who is on a channel's list without being its module or in control.
    let channel = "channel-valrose-sophia-sophia";
    let before = caller.channel_status(channel);
    let peer = caller.seize(channel, "channel-valrose-sophia-valrose");
    assert_eq!(peer, (Code::PermissionDenied, Code::PermissionDenied));
    for channel in ["channel-valrose-sophia-sophia", "channel-valrose-sophia-valrose"] {
        let module = channel.replacen("channel", "detector", 1);
        assert_eq!(caller.seize(channel, &module).0, Code::PermissionDenied, "{module}");
        assert_eq!(caller.channel_status(channel).reserve_replaced, None);
    }
    assert!(before.session != 0 && before.reserve_tags_send > 0, "{before:?}");

    // What a caller says of itself is held against its certificate.
    let refused = Code::PermissionDenied;
    let output = |detector: &str| {
        let of_detector = callees.iter().find(|callee| callee.name() == detector).expect("a detector");
        of_detector.0["output"].as_u64().expect("an output") as u32
    };
    let other = 1 - output("detector-valrose-sophia-sophia");
    assert_eq!(caller.attach("detector-valrose-sophia-sophia", "source-valrose-sophia", other), refused);
    assert_eq!(caller.deliver("detector-valrose-sophia-valrose", "kms-valrose", "valrose-calern"), refused);

    let mut names: BTreeSet<String> = callees.iter().map(|callee| callee.name().to_owned()).collect();
    names.insert("control".to_owned());
    let services: BTreeMap<String, Issued> = names.iter().map(|name| (name.clone(), caller.issue(name))).collect();
    let saes: Vec<Issued> = fs::read_dir(pki.join("saes"))
        .expect("read the applications")
        .filter_map(|entry| entry.expect("an entry").path().file_stem().map(|name| name.to_string_lossy().into_owned()))
        .collect::<BTreeSet<String>>()
        .iter()
        .map(|name| authority.issue_application(name).expect("a certificate"))
        .collect();
    assert!(saes.len() >= 3, "{saes:?}");

    let (mut calls, mut wrong) = (0, Vec::new());
    // What certifies a service names no application.
    let ports = super::ports(&run);
    for callee in callees.iter().filter(|callee| callee.kind() == "kms") {
        let address = ports[&format!("{}.etsi014", callee.name())];
        for (name, issued) in &services {
            let visitor = Visitor { what: name.clone(), identity: Some(issued), version: &TLS13 };
            let asked = visitor.asks_for_status(address, authority.certificate_pem(), callee.name());
            let line = runtime.block_on(asked);
            if !line.starts_with("HTTP/1.1 401") {
                wrong.push(format!("{} ETSI 014: {name} got {line}", callee.name()));
            }
        }
    }
    for callee in &callees {
        let address = ports[callee.name()];
        let outside = saes.iter().map(|issued| (format!("application {}", issued.name), Some(issued)));
        let outside = outside.chain([("no certificate".to_owned(), None)]);
        let inside = services.iter().filter(|(name, _)| !callee.accepts().contains(*name));
        for (what, identity) in outside.chain(inside.map(|(name, issued)| (name.clone(), Some(issued)))) {
            let visitor = Visitor { what, identity, version: &TLS13 };
            let port = Port::Grpc(callee.name());
            if runtime.block_on(visitor.enters(address, authority.certificate_pem(), port)) {
                wrong.push(format!("{}: {} may connect", callee.name(), visitor.what));
            }
        }
        let mut inside: Vec<_> = services.iter().filter(|(name, _)| callee.accepts().contains(*name)).collect();
        // Who is in control comes last: that one's empty orders count.
        inside.sort_by_key(|(name, _)| *name == "control");
        for (name, issued) in inside {
            let channel = caller.connect(issued, callee.name());
            for entry in authority::TABLE {
                let code = runtime.block_on(call(&channel, entry));
                let right = match (callee.may(name, entry), callee.offers(entry)) {
                    (false, _) => code == Code::PermissionDenied,
                    (true, true) => !matches!(code, Code::PermissionDenied | Code::Unimplemented),
                    (true, false) => code == Code::Unimplemented,
                };
                calls += 1;
                if !right {
                    wrong.push(format!("{}/{} of {}: {name} got {code:?}", entry.service, entry.method, callee.name()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(calls >= callees.len() * authority::TABLE.len(), "{calls}");
}
