//! Who may connect to whom: two real services over loopback.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{allow, credentials, dial, dial_refused, eventually, serve};
use proto::channel::v1::GetStatusRequest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use shell::pki::{self, Authority};
use shell::tls::Limits;
use shell::{Credentials, Endpoint, Role};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_the_plan_is_accepted_and_known_by_its_name() {
    let authority = Authority::new("nice").unwrap();
    let server = serve(&credentials(&authority, "channel-a"), &allow(&["channel-b"]), |s| s).await;
    let mut client = dial(&server.endpoint(), "channel-a", &credentials(&authority, "channel-b")).await.unwrap();
    let status = client.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.link, "nice-50");
    assert_eq!(*server.callers.lock().unwrap(), ["channel-b"]);
    assert_eq!(server.running.refusals().total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_the_plan_does_not_name_is_refused_with_a_reason() {
    let authority = Authority::new("nice").unwrap();
    let server = serve(&credentials(&authority, "channel-a"), &allow(&["channel-b"]), |s| s).await;
    let why = dial_refused(&server.endpoint(), "channel-a", &credentials(&authority, "channel-c")).await;
    assert!(why.contains("AccessDenied"), "{why}");
    eventually("a refusal", async || server.running.refusals().handshake() > 0).await;
    assert!(server.callers.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_accepted_once_the_list_names_it() {
    let authority = Authority::new("nice").unwrap();
    let list = allow(&["channel-b"]);
    let server = serve(&credentials(&authority, "channel-a"), &list, |s| s).await;
    let late = credentials(&authority, "channel-c");
    dial_refused(&server.endpoint(), "channel-a", &late).await;
    list.set(["channel-c"]).unwrap();
    let mut client = dial(&server.endpoint(), "channel-a", &late).await.unwrap();
    // It may connect, and has not been given anything to call.
    assert_eq!(client.get_status(GetStatusRequest {}).await.unwrap_err().code(), tonic::Code::PermissionDenied);
    list.grant(Role::Control, ["channel-c"]).unwrap();
    client.get_status(GetStatusRequest {}).await.unwrap();
    dial_refused(&server.endpoint(), "channel-a", &credentials(&authority, "channel-b")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_refuses_a_server_with_another_name() {
    let authority = Authority::new("nice").unwrap();
    let server = serve(&credentials(&authority, "channel-a"), &allow(&["channel-b"]), |s| s).await;
    let why = dial_refused(&server.endpoint(), "channel-x", &credentials(&authority, "channel-b")).await;
    assert!(why.contains("channel-x") && why.contains("not valid for name"), "{why}");
    // Every certificate holds this name, so it must not serve as one.
    let why = dial_refused(&server.endpoint(), "localhost", &credentials(&authority, "channel-b")).await;
    assert!(why.contains("cannot name a service"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_topology_is_refused_by_both_sides() {
    let (ours, foreign) = (Authority::new("nice").unwrap(), Authority::new("nice").unwrap());
    let server = serve(&credentials(&ours, "channel-a"), &allow(&["channel-b"]), |s| s).await;
    let why = dial_refused(&server.endpoint(), "channel-a", &credentials(&foreign, "channel-b")).await;
    assert!(why.contains("invalid peer certificate"), "the client looks at the server first: {why}");

    // One that trusts our server, but proves itself with a foreign certificate.
    let issued = foreign.issue("channel-b").unwrap();
    let stolen = Credentials::from_pem(ours.certificate_pem(), &issued.certificate_pem, &issued.key_pem).unwrap();
    let before = server.running.refusals().handshake();
    dial_refused(&server.endpoint(), "channel-a", &stolen).await;
    eventually("a refusal", async || server.running.refusals().handshake() > before).await;
    assert!(server.callers.lock().unwrap().is_empty());
}

/// A client of our own making, to do what ours cannot be made to do.
async fn bare_handshake(
    server: &common::Served,
    authority: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
    certificate: Option<(&str, &str)>,
) -> std::io::Result<()> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match certificate {
        Some((chain, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(server.running.address()).await.unwrap();
    let name = ServerName::try_from("channel-a").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    // The verdict on our certificate arrives with the first read; HTTP/2 settings mean that we are in.
    stream.read_exact(&mut [0; 9]).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_certificate_and_old_protocols_are_refused() {
    let authority = Authority::new("nice").unwrap();
    let server = serve(&credentials(&authority, "channel-a"), &allow(&["channel-b"]), |s| s).await;
    let issued = authority.issue("channel-b").unwrap();
    let good = Some((issued.certificate_pem.as_str(), issued.key_pem.as_str()));

    bare_handshake(&server, &authority, &rustls::version::TLS13, good).await.unwrap();
    let error = bare_handshake(&server, &authority, &rustls::version::TLS13, None).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    let error = bare_handshake(&server, &authority, &rustls::version::TLS12, good).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    eventually("2 refusals", async || server.running.refusals().handshake() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_do_not_fit_together_are_refused_when_they_are_read() {
    let authority = Authority::new("nice").unwrap();
    let folder = tempfile::tempdir().unwrap();
    pki::prepare(folder.path(), "nice", &["channel-a".to_owned()]).unwrap();
    // A key that does not belong to its certificate.
    std::fs::write(pki::key_path(folder.path(), "channel-a"), authority.issue("channel-a").unwrap().key_pem.as_bytes())
        .unwrap();
    assert!(Credentials::from_folder(folder.path(), "channel-a").is_err());
    std::fs::write(pki::key_path(folder.path(), "channel-a"), "not a key").unwrap();
    let error = Credentials::from_folder(folder.path(), "channel-a").unwrap_err().to_string();
    assert!(error.contains("key"), "{error}");
    assert!(Credentials::from_folder(folder.path(), "absent").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_again_when_their_files_change() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["channel-a".to_owned(), "channel-b".to_owned()];
    pki::prepare(folder.path(), "nice", &names).unwrap();
    let ours = Credentials::from_folder(folder.path(), "channel-a").unwrap();
    let server = serve(&ours, &allow(&["channel-b"]), |s| s).await;
    let client = Credentials::from_folder(folder.path(), "channel-b").unwrap();
    dial(&server.endpoint(), "channel-a", &client).await.unwrap();

    // A new authority and new certificates: those of before no longer open anything.
    let old = Credentials::from_pem(
        &std::fs::read_to_string(pki::authority_path(folder.path())).unwrap(),
        &std::fs::read_to_string(pki::certificate_path(folder.path(), "channel-b")).unwrap(),
        &std::fs::read_to_string(pki::key_path(folder.path(), "channel-b")).unwrap(),
    )
    .unwrap();
    let authority = Authority::new("nice").unwrap();
    authority.save(folder.path()).unwrap();
    for name in &names {
        authority.issue(name).unwrap().save(folder.path()).unwrap();
    }
    dial(&server.endpoint(), "channel-a", &client).await.unwrap();
    dial_refused(&server.endpoint(), "channel-a", &old).await;

    // Rubbish is not taken over.
    std::fs::write(pki::certificate_path(folder.path(), "channel-a"), "rubbish").unwrap();
    dial(&server.endpoint(), "channel-a", &client).await.unwrap();
}

/// Files as a cluster mounts them: links into a folder of a generation, behind one link that is swapped.
fn mount(folder: &Path, generation: &str, authority: &Authority, names: &[&str]) {
    let content = folder.join(generation);
    std::fs::create_dir(&content).unwrap();
    authority.save_certificate(&content).unwrap();
    for name in names {
        authority.issue(name).unwrap().save(&content).unwrap();
    }
    for entry in std::fs::read_dir(&content).unwrap() {
        let name = entry.unwrap().file_name();
        // From the second generation on they are there.
        let _ = std::os::unix::fs::symlink(Path::new("..data").join(&name), folder.join(&name));
    }
    let next = folder.join("..data_tmp");
    std::os::unix::fs::symlink(generation, &next).unwrap();
    std::fs::rename(next, folder.join("..data")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_again_when_a_cluster_swaps_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) = (Authority::new("nice").unwrap(), Authority::new("nice").unwrap());
    mount(folder.path(), "..1", &before, &["channel-a", "channel-b"]);
    let ours = Credentials::from_folder(folder.path(), "channel-a").unwrap();
    let server = serve(&ours, &allow(&["channel-b"]), |s| s).await;
    let client = Credentials::from_folder(folder.path(), "channel-b").unwrap();
    dial(&server.endpoint(), "channel-a", &client).await.unwrap();

    mount(folder.path(), "..2", &after, &["channel-a", "channel-b"]);
    dial(&server.endpoint(), "channel-a", &client).await.unwrap();
    dial_refused(&server.endpoint(), "channel-a", &credentials(&before, "channel-b")).await;
    dial(&server.endpoint(), "channel-a", &credentials(&after, "channel-b")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_hold_nobody_up_and_are_dropped() {
    let authority = Authority::new("nice").unwrap();
    let limits = Limits { handshake: Duration::from_millis(300), handshakes: 8, connections: 16, ..Limits::default() };
    let server = serve(&credentials(&authority, "channel-a"), &allow(&["channel-b"]), |s| s.limits(limits)).await;
    let mut idle = vec![];
    for _ in 0..7 {
        idle.push(TcpStream::connect(server.running.address()).await.unwrap());
    }
    let (endpoint, theirs) = (server.endpoint(), credentials(&authority, "channel-b"));
    let dialled = dial(&endpoint, "channel-a", &theirs);
    tokio::time::timeout(Duration::from_secs(5), dialled).await.unwrap().unwrap();
    for stream in &mut idle {
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 1])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)));
    }
    eventually("7 time-outs", async || server.running.refusals().timed_out() == 7).await;

    // More than the limit at once: the oldest give way.
    let mut crowd = vec![];
    for _ in 0..20 {
        crowd.push(TcpStream::connect(server.running.address()).await.unwrap());
    }
    eventually("12 refusals", async || server.running.refusals().overload() >= 12).await;
    // It stands there, and keeps nobody out.
    dial(&server.endpoint(), "channel-a", &credentials(&authority, "channel-b")).await.unwrap();
    drop(crowd);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_tls_are_refused() {
    use tokio::io::AsyncWriteExt;
    let authority = Authority::new("nice").unwrap();
    let server = serve(&credentials(&authority, "channel-a"), &allow(&["channel-b"]), |s| s).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0xff; 70_000]] {
        let mut stream = TcpStream::connect(server.running.address()).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let mut answer = vec![];
        let read = tokio::time::timeout(Duration::from_secs(4), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "closed at once, not after the time limit");
    }
    eventually("4 refusals", async || server.running.refusals().handshake() == 4).await;
    dial(&server.endpoint(), "channel-a", &credentials(&authority, "channel-b")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_refused_before_its_handler_sees_it_unless_the_table_gives_it_to_the_caller() {
    let authority = Authority::new("nice").unwrap();
    let server = serve(&credentials(&authority, "channel-a"), &allow(&["channel-b", "module"]), |s| s).await;
    for (name, code) in [("channel-b", tonic::Code::PermissionDenied), ("module", tonic::Code::Unimplemented)] {
        let mut client = dial(&server.endpoint(), "channel-a", &credentials(&authority, name)).await.unwrap();
        let status = client.attach(tokio_stream::empty()).await.unwrap_err();
        assert_eq!(status.code(), code, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_for_a_peer_that_comes_later_and_follows_one_that_moves() {
    let run_dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("nice").unwrap();
    let endpoint = Endpoint::in_run_dir(run_dir.path(), "channel-a");
    let (ours, theirs) = (credentials(&authority, "channel-a"), credentials(&authority, "channel-b"));
    let waiting = tokio::spawn({
        let (endpoint, theirs) = (endpoint.clone(), theirs.clone());
        async move { dial(&endpoint, "channel-a", &theirs).await }
    });
    assert!(!waiting.is_finished());
    let first = serve(&ours, &allow(&["channel-b"]), |s| s.run_dir(run_dir.path())).await;
    let mut client = waiting.await.unwrap().unwrap();
    client.get_status(GetStatusRequest {}).await.unwrap();

    first.stop.cancel();
    first.running.stopped().await.unwrap();
    assert!(!run_dir.path().join("channel-a.addr").exists(), "the address is withdrawn");
    let second = serve(&ours, &allow(&["channel-b"]), |s| s.run_dir(run_dir.path())).await;
    let again = async || client.clone().get_status(GetStatusRequest {}).await.is_ok();
    eventually("the same client finds the peer at its new address", again).await;
    assert_eq!(*second.callers.lock().unwrap(), ["channel-b"]);
}
