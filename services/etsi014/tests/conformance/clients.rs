//! The project's own client.

use etsi014::client::{Client, ClientError, NewKeys};
use etsi014::message;
use etsi014::supply::KeyId;
use rcgen::KeyPair;

use super::pki::Pki;
use super::support::{sae, site};

#[tokio::test]
async fn keys_go_from_client_to_client() {
    let site = site().await;
    let (a, b) = (site.client("sae-a"), site.client("sae-b"));
    let status = a.status(&sae("sae-b")).await.unwrap();
    assert_eq!((status.master_sae.as_str(), status.key_size_bits, status.stored_key_count), ("sae-a", 256, 4096));
    let request = NewKeys { number: Some(3), size_bits: Some(512), ..NewKeys::default() };
    let keys = a.get_keys(&sae("sae-b"), &request).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.key.len_bits()).collect::<Vec<_>>(), [512; 3]);
    let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
    assert_eq!(b.get_keys_with_ids(&sae("sae-a"), &ids).await.unwrap(), keys);
    assert_eq!(site.server.counts().handshakes_full, 2, "one connection each");
}

#[tokio::test]
async fn errors_carry_what_the_server_says() {
    let site = site().await;
    let a = site.client("sae-a");
    let request = NewKeys { size_bits: Some(9), ..NewKeys::default() };
    let error = a.get_keys(&sae("sae-b"), &request).await.unwrap_err();
    assert_eq!((error.status(), error.message()), (Some(400), Some(message::SIZE)));
    site.supply.state.lock().unwrap().available_bits = 0;
    let error = a.get_keys(&sae("sae-b"), &NewKeys::default()).await.unwrap_err();
    let ClientError::Refused { status: 503, retry_after_s: Some(7), details, .. } = &error else { panic!("{error:?}") };
    assert_eq!(details[0]["asked_bits"], 256);
    let error = site.client("sae-d").status(&sae("sae-b")).await.unwrap_err();
    assert_eq!(error.status(), Some(401));
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    let limits = etsi014::Limits { idle: std::time::Duration::from_millis(50), ..Default::default() };
    let site = super::support::site_with(limits).await;
    let a = site.client("sae-a");
    for round in 1..=2 {
        a.get_keys(&sae("sae-b"), &NewKeys::default()).await.unwrap();
        // The server closes after its idle limit; a request in that very moment may fail, but none may be sent twice.
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        assert_eq!(site.supply.state.lock().unwrap().asked, round);
    }
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let site = site().await;
    let identity = site.pki.sae("sae-a");
    let client = Client::builder(&site.url, Pki::new().authority(), &identity.certificate, &identity.key);
    assert!(matches!(client.build(), Err(ClientError::Credentials(_))), "its folder is gone");
    let other = Pki::new();
    let client = Client::builder(&site.url, other.authority(), &identity.certificate, &identity.key).build().unwrap();
    assert!(matches!(client.status(&sae("sae-b")).await, Err(ClientError::Connect { .. })));
}

#[tokio::test]
async fn only_https_is_spoken() {
    let site = site().await;
    let identity = site.pki.sae("sae-a");
    for url in ["http://127.0.0.1", "127.0.0.1", "", "https://"] {
        let client = Client::builder(url, site.pki.authority(), &identity.certificate, &identity.key).build();
        assert!(matches!(client, Err(ClientError::Url(_))), "{url}");
    }
}

#[tokio::test]
async fn private_keys_are_read_in_all_three_forms() {
    let site = site().await;
    for form in ["ec-sec1.pem", "ec-pkcs8.pem", "rsa-pkcs1.pem", "rsa-pkcs8.pem"] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/keys");
        let pem = std::fs::read_to_string(folder.join(form)).unwrap();
        let pkcs8 =
            std::fs::read_to_string(folder.join(format!("{}-pkcs8.pem", &form[..form.find('-').unwrap()]))).unwrap();
        let identity = site.pki.for_key("sae-a", &pem, &KeyPair::from_pem(&pkcs8).unwrap());
        let client = Client::builder(&site.url, site.pki.authority(), &identity.certificate, &identity.key);
        client.build().unwrap().status(&sae("sae-b")).await.unwrap();
    }
}
