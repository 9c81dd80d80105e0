//! An independent client, as it is published.

use theirs::{ApiErrorKind, Endpoint, KeyId, KeyIdRequest, KeyRequest};
use etsi014::message;

use super::support::{Site, site};

fn endpoint(site: &Site, name: &str) -> Endpoint {
    let identity = site.pki.sae(name);
    Endpoint::builder(&site.url)
        .root_ca_file(site.pki.authority())
        .identity_files(identity.certificate, identity.key)
        .build()
        .unwrap()
}

fn ids(ids: &[&str]) -> KeyIdRequest {
    KeyIdRequest::new(ids.iter().map(|id| KeyId { key_ID: (*id).to_owned() }).collect())
}

#[tokio::test]
async fn it_reads_the_status() {
    let site = site().await;
    let status = endpoint(&site, "sae-a").status("sae-b").await.unwrap();
    assert_eq!((status.source_KME_ID.as_str(), status.master_SAE_ID.as_str()), ("kme-a", "sae-a"));
    assert_eq!((status.key_size, status.stored_key_count, status.max_SAE_ID_count), (256, 4096, 2));
}

#[tokio::test]
async fn it_moves_keys_from_master_to_slave() {
    let site = site().await;
    let (a, b) = (endpoint(&site, "sae-a"), endpoint(&site, "sae-b"));
    for request in [KeyRequest::default(), KeyRequest::new(Some(3), Some(1024))] {
        let keys = a.get_key("sae-b", &request).await.unwrap().keys;
        let named: Vec<_> = keys.iter().map(|key| key.key_ID.as_str()).collect();
        let fetched = b.get_key_with_id("sae-a", &ids(&named)).await.unwrap().keys;
        let pairs =
            |keys: &[theirs::QKDKey]| keys.iter().map(|k| (k.key_ID.clone(), k.key.clone())).collect::<Vec<_>>();
        assert_eq!(pairs(&fetched), pairs(&keys));
        assert_eq!(keys.len(), request.number.unwrap_or(1) as usize);
    }
}

#[tokio::test]
async fn it_names_an_sae_that_needs_encoding() {
    let site = site().await;
    let status = endpoint(&site, "sae-a").status("SAE A/1 é").await.unwrap();
    assert_eq!(status.slave_SAE_ID, "SAE A/1 é");
}

#[tokio::test]
async fn it_multicasts() {
    let site = site().await;
    let request = KeyRequest { additional_slave_SAE_IDs: Some(vec!["sae-c".to_owned()]), ..KeyRequest::default() };
    let keys = endpoint(&site, "sae-a").get_key("sae-b", &request).await.unwrap().keys;
    for slave in ["sae-b", "sae-c"] {
        let fetched = endpoint(&site, slave).get_key_with_id("sae-a", &ids(&[&keys[0].key_ID])).await.unwrap();
        assert_eq!(fetched.keys[0].key, keys[0].key);
    }
}

#[tokio::test]
async fn it_tells_errors_apart() {
    let site = site().await;
    let a = endpoint(&site, "sae-a");
    let size = a.get_key("sae-b", &KeyRequest::new(None, Some(9))).await.unwrap_err();
    assert_eq!(size.kind(), Some(ApiErrorKind::SizeNotMultipleOf8));
    assert_eq!(size.api_error().unwrap().message, message::SIZE);
    let number = a.get_key("sae-b", &KeyRequest::new(Some(0), None)).await.unwrap_err();
    assert_eq!(number.kind(), Some(ApiErrorKind::BadRequest));
    let unknown = ids(&["bc490419-7d60-487f-adc1-4ddcc177c139"]);
    let missing = a.get_key_with_id("sae-b", &unknown).await.unwrap_err();
    assert_eq!(missing.kind(), Some(ApiErrorKind::KeysNotFound));
    let stranger = endpoint(&site, "sae-d").status("sae-b").await.unwrap_err();
    assert_eq!(stranger.kind(), Some(ApiErrorKind::Unauthorized));
    assert!(!stranger.api_error().unwrap().message.is_empty());
    let taken = a.get_key("sae-b", &KeyRequest::default()).await.unwrap().keys;
    let refused = endpoint(&site, "sae-c").get_key_with_id("sae-a", &ids(&[&taken[0].key_ID])).await.unwrap_err();
    assert_eq!(refused.kind(), Some(ApiErrorKind::Unauthorized));
    site.supply.state.lock().unwrap().available_bits = 0;
    let empty = a.get_key("sae-b", &KeyRequest::default()).await.unwrap_err();
    assert_eq!(empty.kind(), Some(ApiErrorKind::ServiceUnavailable));
    assert_eq!(empty.api_error().unwrap().details.as_ref().unwrap()[0]["asked_bits"], 256);
}
