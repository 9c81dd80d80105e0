//! Two relays as services of their own, over gRPC with certificates.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use proto::relay::v1::relay_client::RelayClient;
use proto::relay::v1::{GetStatusRequest, GetStatusResponse, ListTransfersRequest, RelayMessage};
use shell::launch::ServiceFile;
use shell::pki::Authority;
use shell::{Connector, Credentials, Endpoint, Shutdown, pki};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Channel;
use topology::plan::{RelayConfig, RelayNeighbour};

use crate::world::eventually;

const OBSERVER: &str = topology::plan::CONTROL_IDENTITY;

fn file(folder: &Path, site: &str, near: &str) -> ServiceFile<RelayConfig> {
    let service = RelayConfig {
        name: format!("relay-{site}"),
        site: site.to_owned(),
        kms: format!("kms-{site}"),
        neighbours: vec![RelayNeighbour { site: near.to_owned(), service: format!("relay-{near}"), rerouted: false }],
        targets: Vec::new(),
        transfer_bytes: 1024,
        low_water_bytes: 4096,
        high_water_bytes: 8192,
        shares: 1,
        faults_allowed: false,
        accepts: vec![format!("relay-{near}"), OBSERVER.to_owned()],
    };
    ServiceFile {
        service,
        topology: "test".to_owned(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        health_listen: None,
        ports: BTreeMap::new(),
        pki: folder.join("pki"),
        run_dir: folder.to_owned(),
        data: folder.join("data"),
        secrets: None,
        anchor: None,
        restarted: false,
        span_dir: None,
        span_file_bytes: None,
        peers: BTreeMap::new(),
        directory: None,
    }
}

fn start(file: ServiceFile<RelayConfig>) -> (Shutdown, JoinHandle<anyhow::Result<()>>) {
    let shutdown = Shutdown::new(Duration::from_secs(5));
    let asked = shutdown.clone();
    (shutdown, tokio::spawn(async move { relay::serve(file, &asked).await }))
}

fn connector(folder: &Path, credentials: &Credentials) -> Connector {
    Connector::new(&Endpoint::in_run_dir(folder, "relay-bell"), "relay-bell", credentials)
}

fn meets_ada(status: &GetStatusResponse) -> bool {
    status.neighbours.iter().any(|near| near.site == "ada" && near.connected)
}

async fn status(client: &mut RelayClient<Channel>) -> GetStatusResponse {
    client.get_status(GetStatusRequest {}).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_meet_and_everybody_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["relay-ada", "relay-bell", OBSERVER].map(str::to_owned);
    pki::prepare(&folder.path().join("pki"), "test", &names).unwrap();
    let (stop_bell, bell) = start(file(folder.path(), "bell", "ada"));
    let (stop_ada, ada) = start(file(folder.path(), "ada", "bell"));

    let observer = Credentials::from_folder(&folder.path().join("pki"), OBSERVER).unwrap();
    let mut client = RelayClient::new(connector(folder.path(), &observer).connect().await.unwrap());
    eventually("the neighbour", async || meets_ada(&status(&mut client).await)).await;
    let said = status(&mut client).await;
    assert_eq!(said.site, "bell");
    assert!(!said.kms_connected, "there is no key store in this test");
    let listed = client.list_transfers(ListTransfersRequest { first: 3, limit: 0 }).await.unwrap().into_inner();
    assert_eq!((listed.transfers.len(), listed.next), (0, 3));

    // Who controls the network may look, and not talk.
    let refused = client.neighbour(futures::stream::pending::<RelayMessage>()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // A certificate of another authority opens nothing, whatever name it bears.
    let foreign = Authority::new("test").unwrap();
    let issued = foreign.issue("relay-ada").unwrap();
    let ours = std::fs::read_to_string(pki::authority_path(&folder.path().join("pki"))).unwrap();
    let forged = Credentials::from_pem(&ours, &issued.certificate_pem, &issued.key_pem).unwrap();
    let refused = connector(folder.path(), &forged).deadline(Duration::from_millis(500)).connect().await;
    refused.expect_err("a foreign certificate was taken");
    assert!(meets_ada(&status(&mut client).await));

    stop_ada.request();
    ada.await.unwrap().unwrap();
    eventually("the loss", async || !meets_ada(&status(&mut client).await)).await;
    stop_bell.request();
    drop(client);
    bell.await.unwrap().unwrap();
}
