//! Who is let in, and as whom.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use etsi014::{Access, CredentialFiles, Credentials, Fingerprint, Limits, Naming};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::version::{TLS12, TLS13};
use tokio::io::AsyncReadExt as _;

use super::pki::{Identity, Names, Pki};
use super::support::{PATIENCE, Site, config, credentials, sae, site, site_naming, site_of};

const STATUS: &str = "/api/v1/keys/sae-b/status";

/// Whom the server takes a client for.
async fn taken_for(site: &Site, identity: &Identity) -> Result<String, String> {
    let response = site.connect_as(identity).await.ask("GET", STATUS, "").await;
    match response.status {
        200 => Ok(response.json()["master_SAE_ID"].as_str().unwrap().to_owned()),
        401 => Err(response.message()),
        other => panic!("{other}"),
    }
}

/// In TLS 1.3 the client is through before the server has seen its certificate; the refusal is what it reads next.
async fn refused(site: &Site, config: Arc<ClientConfig>) -> bool {
    let before = site.server.counts().refused_handshake;
    let failed = match site.dial(config).await {
        Err(_) => true,
        Ok(mut raw) => {
            let _ = raw.send(format!("GET {STATUS} HTTP/1.1\r\nHost: k\r\n\r\n")).await;
            !matches!(tokio::time::timeout(PATIENCE, raw.stream.read(&mut [0; 1])).await.unwrap(), Ok(1..))
        }
    };
    let counted = async {
        while site.server.counts().refused_handshake == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("not counted");
    failed
}

#[tokio::test]
async fn the_sae_is_the_uri_then_the_domain_then_the_common_name() {
    let site = site().await;
    let (uris, domains, common) = (["sae:sae-a"], ["sae-b"], Some("sae-c"));
    let all = site.pki.client("1", &Names { uris: &uris, domains: &domains, common });
    let two = site.pki.client("2", &Names { domains: &domains, common, ..Names::default() });
    let one = site.pki.client("3", &Names { common, ..Names::default() });
    assert_eq!(taken_for(&site, &all).await.as_deref(), Ok("sae-a"));
    assert_eq!(taken_for(&site, &two).await.as_deref(), Ok("sae-b"));
    assert_eq!(taken_for(&site, &one).await.as_deref(), Ok("sae-c"));
}

#[tokio::test]
async fn a_uri_of_the_scheme_sae_counts_before_other_uris() {
    let site = site().await;
    let access = Access::new(["sae-a", "urn:other"].map(sae));
    site.access.replace(access);
    let both = site.pki.client("1", &Names { uris: &["urn:other", "sae:sae-a"], ..Names::default() });
    let other = site.pki.client("2", &Names { uris: &["urn:other"], common: Some("sae-a"), ..Names::default() });
    assert_eq!(taken_for(&site, &both).await.as_deref(), Ok("sae-a"));
    assert_eq!(taken_for(&site, &other).await.as_deref(), Ok("urn:other"));
}

#[tokio::test]
async fn with_the_authority_of_a_topology_the_uri_of_the_scheme_sae_alone_names_an_application() {
    let pki = Pki::new();
    let kme = pki.server("kme-a");
    let credentials = credentials(&pki, &kme);
    let site = site_naming(pki, kme, credentials, Limits::default(), Naming::SaeUri).await;
    // A service's certificate has its name as a DNS name and as the common name.
    let (uris, domains, common) = (["sae:sae-a"], ["sae-b"], Some("sae-b"));
    let application = site.pki.client("1", &Names { uris: &uris, common: Some("sae-a"), ..Names::default() });
    let service = site.pki.client("2", &Names { domains: &domains, common, ..Names::default() });
    let other_uri = site.pki.client("3", &Names { uris: &["sae-b", "urn:sae-b"], domains: &domains, common });
    let both = site.pki.client("4", &Names { uris: &uris, domains: &domains, common });
    assert_eq!(taken_for(&site, &application).await.as_deref(), Ok("sae-a"));
    assert_eq!(taken_for(&site, &both).await.as_deref(), Ok("sae-a"));
    for nobody in [&service, &other_uri] {
        let why = taken_for(&site, nobody).await.unwrap_err();
        assert!(why.contains("names no SAE"), "{why}");
    }
}

#[tokio::test]
async fn a_listed_fingerprint_counts_before_any_name() {
    let site = site().await;
    let nameless = site.pki.client("1", &Names::default());
    assert!(taken_for(&site, &nameless).await.is_err());
    let named = site.pki.sae("sae-b");
    let mut access = Access::new([sae("sae-a")]);
    for identity in [&nameless, &named] {
        let der = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap();
        access.fingerprints.insert(Fingerprint::of(&der), sae("sae-a"));
    }
    site.access.replace(access);
    assert_eq!(taken_for(&site, &nameless).await.as_deref(), Ok("sae-a"));
    assert_eq!(taken_for(&site, &named).await.as_deref(), Ok("sae-a"));
}

#[tokio::test]
async fn an_sae_of_another_kme_gets_401_with_a_message_for_everything() {
    let site = site().await;
    let mut stranger = site.connect("sae-d").await;
    for (method, target) in [("GET", STATUS), ("POST", "/api/v1/keys/sae-b/enc_keys"), ("GET", "/nothing")] {
        let response = stranger.ask(method, target, "").await;
        assert_eq!(response.status, 401);
        assert!(!response.message().is_empty());
    }
    assert_eq!(site.supply.state.lock().unwrap().asked, 0);
}

#[tokio::test]
async fn a_change_of_the_list_reaches_connections_that_exist() {
    let site = site().await;
    let (mut a, mut d) = (site.connect("sae-a").await, site.connect("sae-d").await);
    assert_eq!([a.ask("GET", STATUS, "").await.status, d.ask("GET", STATUS, "").await.status], [200, 401]);
    site.access.replace(Access::new([sae("sae-d")]));
    assert_eq!([a.ask("GET", STATUS, "").await.status, d.ask("GET", STATUS, "").await.status], [401, 200]);
}

#[tokio::test]
async fn without_a_certificate_there_is_no_connection() {
    let site = site().await;
    for version in [&TLS12, &TLS13] {
        assert!(refused(&site, config(&site.pki, None, version)).await);
    }
}

#[tokio::test]
async fn a_foreign_or_expired_certificate_is_refused_in_the_handshake() {
    let site = site().await;
    let (foreign, expired) = (Pki::new().sae("sae-a"), site.pki.expired("sae-a"));
    // The folder of the foreign authority is gone; its key was read before.
    let foreign_pki = Pki::new();
    drop(foreign);
    let foreign = foreign_pki.sae("sae-a");
    for version in [&TLS12, &TLS13] {
        assert!(refused(&site, config(&site.pki, Some(&foreign), version)).await);
        assert!(refused(&site, config(&site.pki, Some(&expired), version)).await);
    }
    assert_eq!(site.server.counts().handshakes_full, 0);
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken() {
    let site = site().await;
    let identity = site.pki.sae("sae-a");
    for version in [&TLS12, &TLS13] {
        let mut raw = site.dial(config(&site.pki, Some(&identity), version)).await.unwrap();
        assert_eq!(raw.ask("GET", STATUS, "").await.status, 200);
        assert_eq!(raw.stream.get_ref().1.protocol_version(), Some(version.version));
    }
}

#[tokio::test]
async fn sessions_are_resumed_and_still_know_the_sae() {
    let site = site().await;
    for version in [&TLS12, &TLS13] {
        let before = site.server.counts();
        let config = config(&site.pki, Some(&site.pki.sae("sae-a")), version);
        for _ in 0..4 {
            let mut raw = site.dial(config.clone()).await.unwrap();
            let response = raw.ask("GET", STATUS, "").await;
            assert_eq!(response.json()["master_SAE_ID"], "sae-a");
        }
        let now = site.server.counts();
        let (full, resumed) =
            (now.handshakes_full - before.handshakes_full, now.handshakes_resumed - before.handshakes_resumed);
        assert_eq!((full, resumed), (1, 3));
    }
}

#[tokio::test]
async fn a_resumed_session_ends_with_its_certificate() {
    let site = site().await;
    let left = Duration::from_secs(3);
    let identity = site.pki.expiring("sae-a", left);
    let until = SystemTime::now() + left;
    let config = config(&site.pki, Some(&identity), &TLS13);
    assert_eq!(site.dial(config.clone()).await.unwrap().ask("GET", STATUS, "").await.status, 200);
    // The condition waited for is the clock's: the certificate's time counts in whole seconds.
    tokio::time::sleep(until.duration_since(SystemTime::now()).unwrap_or_default() + Duration::from_secs(1)).await;
    assert!(refused(&site, config).await);
}

#[tokio::test]
async fn a_client_without_tls_is_refused() {
    let site = site().await;
    let mut plain = tokio::net::TcpStream::connect(site.server.address()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\nHost: k\r\n\r\n").await.unwrap();
    let mut answer = vec![];
    let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"));
}

#[tokio::test]
async fn new_credential_files_count_for_the_next_connection_and_bad_ones_do_not() {
    let pki = Pki::new();
    let kme = pki.server("kme");
    let files =
        CredentialFiles { authority: pki.authority(), certificate: kme.certificate.clone(), key: kme.key.clone() };
    let credentials = Credentials::from_files(files).unwrap();
    let site = site_of(pki, kme, credentials.clone(), Limits::default()).await;
    let presented = async |site: &Site| {
        let raw = site.connect("sae-a").await;
        raw.stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = presented(&site).await;
    let renewed = site.pki.server("kme");
    credentials.refresh();
    let second = presented(&site).await;
    assert_ne!(first, second);
    assert_eq!(second, CertificateDer::from_pem_slice(renewed.certificate_pem.as_bytes()).unwrap());
    std::fs::write(&site.kme.certificate, "nonsense").unwrap();
    credentials.refresh();
    assert_eq!(presented(&site).await, second);
}
