//! Every port of every service of a plan: who is let in, and who is not.

mod calls;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use shell::pki::{Authority, Issued};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use topology::plan::Directory;

use crate::keys::{Network, eventually};
use crate::support::{Place, bright_network};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a service's configuration says of its port.
struct Planned {
    name: String,
    accepts: Vec<String>,
}

/// The configurations of the services that run, as they complete them.
fn configurations(run: &Path) -> Vec<serde_yaml::Value> {
    let directory = run.join("directory.yaml");
    let text = fs::read_to_string(&directory).expect("read the directory");
    let network: Directory = serde_yaml::from_str(&text).expect("a directory");
    let mut services = Vec::new();
    for entry in fs::read_dir(run).expect("read the configurations") {
        let path = entry.expect("an entry").path();
        if path != directory && path.extension().is_some_and(|ending| ending == "yaml") {
            let text = fs::read_to_string(&path).expect("read a configuration");
            let mut file: serde_yaml::Value = serde_yaml::from_str(&text).expect("YAML");
            let mut service = std::mem::take(&mut file["service"]);
            // What a module is stands one level lower, beside its instrument.
            if service["module"].is_mapping() {
                service = std::mem::take(&mut service["module"]);
            }
            if service["name"].as_str().is_some_and(|name| name.starts_with("kms-")) {
                let config = serde_yaml::from_value(service).expect("the configuration of a key store");
                service = serde_yaml::to_value(network.complete_kms(config)).expect("YAML");
            }
            services.push(service);
        }
    }
    services
}

fn plan(run: &Path) -> Vec<Planned> {
    let planned = |service: &serde_yaml::Value| {
        let accepts = service["accepts"].as_sequence().expect("peers").iter();
        Planned {
            name: service["name"].as_str().expect("a name").to_owned(),
            accepts: accepts.filter_map(|peer| peer.as_str().map(str::to_owned)).collect(),
        }
    };
    let mut services: Vec<Planned> = configurations(run).iter().map(planned).collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

/// Address files of the run, by name.
fn ports(run: &Path) -> BTreeMap<String, SocketAddr> {
    let mut ports = BTreeMap::new();
    for entry in fs::read_dir(run).expect("read the addresses") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "addr") {
            let text = fs::read_to_string(&path).expect("read an address");
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            ports.insert(name, text.trim().parse().expect("an address"));
        }
    }
    ports
}

/// A stranger, or a peer: what it proves itself with.
struct Visitor<'a> {
    what: String,
    identity: Option<&'a Issued>,
    version: &'static SupportedProtocolVersion,
}

impl Visitor<'_> {
    fn config(&self, authority_pem: &str, protocol: Option<&[u8]>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority_pem.as_bytes()).expect("a certificate"))
            .expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[self.version])
            .expect("a version")
            .with_root_certificates(roots);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let chain = vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("a chain")];
                let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("an identity")
            }
        };
        config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
        Arc::new(config)
    }

    /// The first byte that the service sends after the handshake, which is none for whom it does not let in: in TLS 1.3
    /// the verdict on a client's certificate comes with the first read.
    async fn enters(&self, address: SocketAddr, authority_pem: &str, kind: Port<'_>) -> bool {
        let (name, protocol, greeting): (_, _, &[u8]) = match kind {
            Port::Grpc(name) => (name, Some(b"h2".as_slice()), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
            Port::Etsi014(name) => (name, None, b"GET / HTTP/1.1\r\nHost: k\r\n\r\n"),
        };
        let visit = async {
            let stream = TcpStream::connect(address).await.expect("connect");
            let name = ServerName::try_from(name.to_owned()).expect("a name");
            let connector = TlsConnector::from(self.config(authority_pem, protocol));
            let mut stream = connector.connect(name, stream).await.ok()?;
            stream.write_all(greeting).await.ok()?;
            stream.flush().await.ok()?;
            stream.read_u8().await.ok()
        };
        tokio::time::timeout(PATIENCE, visit).await.expect("neither let in nor refused").is_some()
    }
}

impl Visitor<'_> {
    /// The first line of the answer to an application that asks how much key there is.
    async fn asks_for_status(&self, address: SocketAddr, authority_pem: &str, name: &str) -> String {
        let visit = async {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from(name.to_owned()).expect("a name");
            let mut stream = TlsConnector::from(self.config(authority_pem, None)).connect(name, stream).await?;
            let request = "GET /api/v1/keys/inria/status HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await?;
            stream.flush().await?;
            let mut answer = Vec::new();
            stream.take(64).read_to_end(&mut answer).await?;
            std::io::Result::Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
        };
        let line = tokio::time::timeout(PATIENCE, visit).await.expect("no answer");
        line.unwrap_or_else(|error| error.to_string())
    }
}

#[derive(Clone, Copy)]
enum Port<'a> {
    Grpc(&'a str),
    Etsi014(&'a str),
}

#[test]
fn every_port_lets_in_whom_the_plan_names_and_nobody_else() {
    let place = Place::new(&bright_network());
    let network = Network::start_with(&place, "process", |command| {
        command.args(["--speed", "1"]);
    });
    let data = place.path("data");
    let pki = data.join(".qkdnet/pki");
    eventually("key flows", || network.status().filter(|status| status["ready"] == true)).expect("a network");
    let services = plan(&data.join(".qkdnet/run"));
    let ports = ports(&data.join(".qkdnet/run"));
    let authority = Authority::load(&pki).expect("the authority");
    let foreign = Authority::new("nice").expect("another authority");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");

    let own: BTreeMap<String, Issued> = services
        .iter()
        .map(|service| service.name.clone())
        .chain(["control".to_owned(), "nobody".to_owned()])
        .map(|name| (name.clone(), authority.issue(&name).expect("a certificate")))
        .collect();
    let until = std::time::Instant::now() + Duration::from_millis(1100);
    let expired: BTreeMap<String, Issued> = own
        .keys()
        .map(|name| (name.clone(), authority.issue_until(name, Duration::ZERO).expect("a certificate")))
        .collect();
    // The condition is the clock's: certificates count whole seconds.
    std::thread::sleep(until.saturating_duration_since(std::time::Instant::now()));
    let (mut let_in, mut wrong) = (0, Vec::new());
    let mut judge = |port: &str, visitor: &Visitor<'_>, entered: bool, right: bool| {
        let_in += usize::from(entered);
        if entered != right {
            wrong.push(format!("{port}: {} was {}", visitor.what, if entered { "let in" } else { "refused" }));
        }
    };
    for service in &services {
        let address = *ports.get(&service.name).unwrap_or_else(|| panic!("{} has no address", service.name));
        let peer = &service.accepts[0];
        let strangers = [
            ("no certificate".to_owned(), None),
            (format!("a foreign certificate of {peer}"), Some(foreign.issue(peer).expect("a certificate"))),
            (format!("an application called {peer}"), Some(authority.issue_application(peer).expect("a certificate"))),
        ];
        for (what, identity) in &strangers {
            let visitor = Visitor { what: what.clone(), identity: identity.as_ref(), version: &TLS13 };
            let entered =
                runtime.block_on(visitor.enters(address, authority.certificate_pem(), Port::Grpc(&service.name)));
            judge(&service.name, &visitor, entered, false);
        }
        let late = Visitor { what: format!("an expired {peer}"), identity: expired.get(peer), version: &TLS13 };
        let entered = runtime.block_on(late.enters(address, authority.certificate_pem(), Port::Grpc(&service.name)));
        judge(&service.name, &late, entered, false);
        for (name, issued) in &own {
            let visitor = Visitor { what: name.clone(), identity: Some(issued), version: &TLS13 };
            let entered =
                runtime.block_on(visitor.enters(address, authority.certificate_pem(), Port::Grpc(&service.name)));
            judge(&service.name, &visitor, entered, service.accepts.contains(name));
        }
        let old = Visitor { what: format!("{peer} with TLS 1.2"), identity: own.get(peer), version: &TLS12 };
        let entered = runtime.block_on(old.enters(address, authority.certificate_pem(), Port::Grpc(&service.name)));
        judge(&service.name, &old, entered, false);
    }
    let stores: Vec<&Planned> = services.iter().filter(|service| service.name.starts_with("kms-")).collect();
    assert_eq!(stores.len(), 3);
    for store in &stores {
        let address = ports[&format!("{}.etsi014", store.name)];
        for (what, identity, right) in [
            ("an application", Some(authority.issue_application("university").expect("a certificate")), true),
            ("no certificate", None, false),
            ("a foreign application", Some(foreign.issue_application("university").expect("a certificate")), false),
        ] {
            for version in [&TLS12, &TLS13] {
                let visitor = Visitor { what: what.to_owned(), identity: identity.as_ref(), version };
                let entered =
                    runtime.block_on(visitor.enters(address, authority.certificate_pem(), Port::Etsi014(&store.name)));
                judge(&format!("{} ETSI 014", store.name), &visitor, entered, right);
            }
        }
    }
    for store in &stores {
        let late = Visitor { what: "an expired one".to_owned(), identity: expired.get("nobody"), version: &TLS13 };
        let address = ports[&format!("{}.etsi014", store.name)];
        let entered = runtime.block_on(late.enters(address, authority.certificate_pem(), Port::Etsi014(&store.name)));
        judge(&format!("{} ETSI 014", store.name), &late, entered, false);
    }
    // Of what listens nothing was left out.
    assert_eq!(ports.len(), services.len() + 2 * stores.len(), "{ports:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(let_in >= services.len() + 2 * stores.len(), "{let_in}");
    network.stop();
}
