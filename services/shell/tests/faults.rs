//! Faults over gRPC: whoever controls the network gives orders, and nobody else.

#![allow(clippy::unwrap_used)]

mod common;

use common::{credentials, serve};
use proto::fault::v1::fault::What;
use proto::fault::v1::faults_client::FaultsClient;
use proto::fault::v1::{
    ClearRequest, DiskFull, Fault, InjectRequest, ListRequest, Loss, Partition, Phase, WatchRequest,
};
use shell::fault::{Desk, FaultService, Kind, Place};
use shell::pki::Authority;
use shell::{AllowList, Connector, Credentials, Endpoint, Role};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;

const CONTROL: &str = "control";

async fn client(endpoint: &Endpoint, credentials: &Credentials) -> FaultsClient<Channel> {
    FaultsClient::new(Connector::new(endpoint, "kms-sophia", credentials).connect().await.unwrap())
}

fn order(service: &str, id: &str, what: What) -> InjectRequest {
    InjectRequest {
        service: service.to_owned(),
        id: id.to_owned(),
        fault: Some(Fault { what: Some(what) }),
        description: "for a test".to_owned(),
        ..InjectRequest::default()
    }
}

#[tokio::test]
async fn only_who_controls_the_network_gives_orders_and_hears_of_them() {
    let authority = Authority::new("nice").unwrap();
    let desk = Desk::open(Place::new("kms-sophia", "sophia", "", Kind::Kms, 0)).unwrap();
    let stop = CancellationToken::new();
    let allow = AllowList::new([CONTROL, "kms-valrose"]).unwrap().with(Role::Control, [CONTROL]).unwrap();
    let faults = FaultService::new([desk.clone()], &stop).server();
    let served = serve(&credentials(&authority, "kms-sophia"), &allow, |server| server.add_service(faults)).await;

    let full = || What::DiskFull(DiskFull {});
    let mut peer = client(&served.endpoint(), &credentials(&authority, "kms-valrose")).await;
    let refused = [
        peer.inject(order("kms-sophia", "full", full())).await.unwrap_err(),
        peer.clear(ClearRequest { service: "kms-sophia".to_owned(), id: String::new() }).await.unwrap_err(),
        peer.list(ListRequest::default()).await.unwrap_err(),
        peer.watch(WatchRequest {}).await.unwrap_err(),
    ];
    assert!(refused.iter().all(|status| status.code() == Code::PermissionDenied), "{refused:?}");
    assert!(desk.list().is_empty());

    let mut control = client(&served.endpoint(), &credentials(&authority, CONTROL)).await;
    let mut events = control.watch(WatchRequest {}).await.unwrap().into_inner();
    let state = control.inject(order("kms-sophia", "full", full())).await.unwrap().into_inner().state.unwrap();
    assert_eq!((state.phase(), state.site.as_str()), (Phase::Active, "sophia"));
    assert!(desk.disk().is_full());
    let event = events.message().await.unwrap().unwrap();
    assert_eq!((event.id.as_str(), event.phase()), ("full", Phase::Active));
    let mut late = control.watch(WatchRequest {}).await.unwrap().into_inner();
    assert_eq!(late.message().await.unwrap().unwrap().id, "full", "what there is comes first");
    for (request, code) in [
        (order("kms-nowhere", "a", full()), Code::NotFound),
        (order("kms-sophia", "full", full()), Code::AlreadyExists),
        (order("kms-sophia", "", full()), Code::InvalidArgument),
        (
            order("kms-sophia", "a", What::Loss(Loss { outputs: vec![0], loss_db: 3.0, cut: false })),
            Code::InvalidArgument,
        ),
        (order("kms-sophia", "a", What::Partition(Partition { site: "sophia".to_owned() })), Code::InvalidArgument),
        (InjectRequest { fault: None, ..order("kms-sophia", "a", full()) }, Code::InvalidArgument),
    ] {
        assert_eq!(control.inject(request.clone()).await.unwrap_err().code(), code, "{request:?}");
    }
    let cleared =
        control.clear(ClearRequest { service: "kms-sophia".to_owned(), id: "full".to_owned() }).await.unwrap();
    assert_eq!(cleared.into_inner().cleared, 1);
    assert_eq!(events.message().await.unwrap().unwrap().phase(), Phase::Over);
    // A watcher does not hold the server up.
    stop.cancel();
    assert!(events.message().await.unwrap().is_none());
    served.stop.cancel();
    served.running.stopped().await.unwrap();
}
