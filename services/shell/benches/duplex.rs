//! What a two-way stream carries: in memory, and over gRPC with mutual TLS 1.3 on the loopback address.

#![allow(clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use proto::source::v1::source_client::SourceClient;
use proto::source::v1::source_server::{Source, SourceServer};
use proto::source::v1::{
    AnalyserUpdate, GetStatusRequest, GetStatusResponse, PhotonEpoch, SetLossRequest, SetLossResponse,
};
use shell::duplex::{self, Answer, Duplex};
use shell::pki::Authority;
use shell::{AllowList, Credentials, Endpoint, Role, Server};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// One epoch of 20 ms at 6.5 million photons per second, four bytes each.
const EPOCH_BYTES: usize = 520_000;
const EPOCHS: u64 = 50;

struct Emitter(mpsc::Sender<Duplex<PhotonEpoch, AnalyserUpdate>>);

#[tonic::async_trait]
impl Source for Emitter {
    type AttachStream = Answer<PhotonEpoch>;

    async fn attach(
        &self,
        request: Request<Streaming<AnalyserUpdate>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (stream, answer) = duplex::accept(request.into_inner(), 4);
        self.0.send(stream).await.map_err(|_| Status::unavailable("over"))?;
        Ok(answer)
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn set_loss(&self, _: Request<SetLossRequest>) -> Result<Response<SetLossResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

fn credentials(authority: &Authority, name: &str) -> Credentials {
    let issued = authority.issue(name).unwrap();
    Credentials::from_pem(authority.certificate_pem(), &issued.certificate_pem, &issued.key_pem).unwrap()
}

async fn over_grpc() -> (Duplex<PhotonEpoch, AnalyserUpdate>, Duplex<AnalyserUpdate, PhotonEpoch>) {
    let authority = Authority::new("bench").unwrap();
    let (sender, mut streams) = mpsc::channel(1);
    let allow = AllowList::new(["detector"]).unwrap().with(Role::Module, ["detector"]).unwrap();
    let server = Server::builder("source", &credentials(&authority, "source"), &allow)
        .add_service(shell::limited!(SourceServer::new(Emitter(sender))))
        .start(CancellationToken::new())
        .await
        .unwrap();
    let endpoint = Endpoint::Address(server.address());
    let channel = shell::connect(&endpoint, "source", &credentials(&authority, "detector")).await.unwrap();
    let mut client = shell::limited!(SourceClient::new(channel));
    let client = duplex::open(4, |outgoing| async move { client.attach(outgoing).await }).await.unwrap();
    (streams.recv().await.unwrap(), client)
}

async fn run(
    source: &mut Duplex<PhotonEpoch, AnalyserUpdate>,
    detector: &mut Duplex<AnalyserUpdate, PhotonEpoch>,
) -> usize {
    let photons = bytes::Bytes::from(vec![7; EPOCH_BYTES]);
    let emit = async {
        for epoch in 0..EPOCHS {
            source.receive().await.unwrap();
            source.send(PhotonEpoch { epoch, photons: photons.clone(), ..Default::default() }).await.unwrap();
        }
    };
    let detect = async {
        let mut received = 0;
        // The analyser's state runs two epochs ahead.
        for _ in 0..2 {
            detector.send(AnalyserUpdate::default()).await.unwrap();
        }
        for epoch in 0..EPOCHS {
            received += detector.receive().await.unwrap().photons.len();
            if epoch + 2 < EPOCHS {
                detector.send(AnalyserUpdate::default()).await.unwrap();
            }
        }
        received
    };
    tokio::join!(emit, detect).1
}

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("photon_epochs");
    group.throughput(Throughput::Bytes(EPOCH_BYTES as u64 * EPOCHS)).sample_size(10);
    let (mut source, mut detector) = Duplex::pair(4);
    group.bench_function("memory", |b| b.iter(|| runtime.block_on(run(&mut source, &mut detector))));
    let (mut source, mut detector) = runtime.block_on(over_grpc());
    group.bench_function("grpc_mutual_tls", |b| b.iter(|| runtime.block_on(run(&mut source, &mut detector))));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
