//! Two-way streams, health and the end of a server, over loopback.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{CAPACITY, Served, allow, credentials, dial, serve};
use proto::channel::v1::PeerFrame;
use shell::duplex::{self, Closed, Duplex};
use shell::health::{Health, LINK};
use shell::pki::Authority;
use shell::{Connector, Credentials};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

type Frames = Duplex<PeerFrame, PeerFrame>;

async fn network() -> (Served, Credentials) {
    let authority = Authority::new("nice").unwrap();
    let server =
        serve(&credentials(&authority, "channel-a"), &allow(&["channel-b"]), |s| s.drain(Duration::from_millis(300)))
            .await;
    (server, credentials(&authority, "channel-b"))
}

async fn open(server: &mut Served, theirs: &Credentials) -> (Frames, Frames) {
    let mut client = dial(&server.endpoint(), "channel-a", theirs).await.unwrap();
    let ours = duplex::open(CAPACITY, |outgoing| async move { client.peer(outgoing).await }).await.unwrap();
    (ours, server.streams.recv().await.unwrap())
}

fn frame(number: u32, bytes: usize) -> PeerFrame {
    let mut frame = number.to_le_bytes().to_vec();
    frame.resize(bytes.max(4), 0);
    PeerFrame { frame: frame.into() }
}

fn number(frame: &PeerFrame) -> u32 {
    u32::from_le_bytes(frame.frame[..4].try_into().unwrap())
}

/// What service logic looks like: it does not know what carries its messages.
async fn count_up(mut end: Frames, messages: u32) -> u32 {
    let mut received = 0;
    for sent in 0..messages {
        end.send(frame(sent, 100)).await.unwrap();
        let got = end.receive().await.unwrap();
        assert_eq!(number(&got), received);
        received += 1;
    }
    received
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_logic_runs_in_memory_and_over_grpc() {
    let (left, right) = Duplex::pair(CAPACITY);
    assert_eq!(tokio::join!(count_up(left, 500), count_up(right, 500)), (500, 500));
    let (mut server, theirs) = network().await;
    let (left, right) = open(&mut server, &theirs).await;
    assert_eq!(tokio::join!(count_up(left, 500), count_up(right, 500)), (500, 500));
}

#[tokio::test(flavor = "multi_thread")]
async fn order_is_kept_and_the_end_arrives() {
    let (mut server, theirs) = network().await;
    let (ours, mut peer) = open(&mut server, &theirs).await;
    tokio::spawn(async move {
        for sent in 0..2_000 {
            ours.send(frame(sent, 1_000)).await.unwrap();
        }
    });
    for expected in 0..2_000 {
        assert_eq!(number(&peer.receive().await.unwrap()), expected);
    }
    assert!(peer.receive().await.is_none(), "the sender has ended its side");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_does_not_take_stops_the_sender() {
    let (mut server, theirs) = network().await;
    for from_client in [true, false] {
        let (ours, theirs) = open(&mut server, &theirs).await;
        let (sender, mut receiver) = if from_client { (ours, theirs) } else { (theirs, ours) };
        // Messages of 1 MiB: what may wait is bounded by HTTP/2's windows and the two queues, not by what is sent.
        let mut sent = 0;
        while tokio::time::timeout(Duration::from_millis(400), sender.send(frame(sent, 1 << 20))).await.is_ok() {
            sent += 1;
            assert!(sent < 100, "nothing stops the sender");
        }
        let window = shell::MESSAGE_LIMIT_BYTES as u32 >> 20;
        assert!(sent < window, "{sent} messages wait");
        // The one whose sending was given up is not lost in between: order goes on.
        for expected in 0..sent {
            assert_eq!(number(&receiver.receive().await.unwrap()), expected);
        }
        sender.send(frame(sent, 1 << 20)).await.unwrap();
        assert_eq!(number(&receiver.receive().await.unwrap()), sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_pass_and_oversized_ones_end_the_stream_only() {
    let (mut server, theirs) = network().await;
    let (ours, mut peer) = open(&mut server, &theirs).await;
    ours.send(frame(1, 32 << 20)).await.unwrap();
    assert_eq!(peer.receive().await.unwrap().frame.len(), 32 << 20);
    ours.send(frame(2, (64 << 20) + 1)).await.unwrap();
    assert!(peer.receive().await.is_none());
    let (ours, mut peer) = open(&mut server, &theirs).await;
    ours.send(frame(3, 10)).await.unwrap();
    assert_eq!(number(&peer.receive().await.unwrap()), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_leaves_is_noticed_by_the_other() {
    let (mut server, theirs) = network().await;
    let (ours, mut peer) = open(&mut server, &theirs).await;
    drop(ours);
    assert!(peer.receive().await.is_none());
    assert!(peer.finish(Duration::from_secs(1)).await);

    let (mut ours, peer) = open(&mut server, &theirs).await;
    drop(peer);
    assert!(ours.receive().await.is_none());

    // One that is killed says nothing; the connection does.
    let (mut ours, peer) = open(&mut server, &theirs).await;
    server.stop.cancel();
    server.running.stopped().await.unwrap();
    assert!(ours.receive().await.is_none());
    drop(ours.rx);
    let noticed = tokio::time::timeout(Duration::from_secs(2), ours.tx.closed()).await;
    noticed.expect("what cannot be sent is refused");
    assert_eq!(ours.tx.send(frame(0, 4)).await.map_err(|_| Closed), Err(Closed));
    drop(peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_arrives_although_the_sender_has_left() {
    let (mut server, theirs) = network().await;
    for from_client in [true, false] {
        let (ours, theirs) = open(&mut server, &theirs).await;
        let (sender, mut receiver) = if from_client { (ours, theirs) } else { (theirs, ours) };
        sender.send(frame(0, 4 << 20)).await.unwrap();
        sender.send(frame(1, 4 << 20)).await.unwrap();
        drop(sender);
        assert_eq!(number(&receiver.receive().await.unwrap()), 0);
        assert_eq!(number(&receiver.receive().await.unwrap()), 1);
        assert!(receiver.receive().await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_connectable_and_key_flows_apart() {
    let authority = Authority::new("nice").unwrap();
    let allow = allow(&["cli"]);
    let health = Health::new();
    let plain = "127.0.0.1:0".parse().unwrap();
    let server = serve(&credentials(&authority, "channel-a"), &allow, |s| s.health(&health).health_listen(plain)).await;
    let channel = Connector::new(&server.endpoint(), "channel-a", &credentials(&authority, "cli")).connect();
    let probe = format!("http://{}", server.running.health_address().unwrap());
    let probe = tonic::transport::Endpoint::from_shared(probe).unwrap().connect().await.unwrap();
    for channel in [channel.await.unwrap(), probe.clone()] {
        let mut client = HealthClient::new(channel);
        let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
        assert_eq!(client.check(ask("")).await.unwrap().into_inner().status, 1);
        assert_eq!(client.check(ask(LINK)).await.unwrap().into_inner().status, 2);
        let mut watch = client.watch(ask(LINK)).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
        health.set_link(true);
        assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
        health.link_flowing().await;
        assert_eq!(client.check(ask(LINK)).await.unwrap().into_inner().status, 1);
        assert_eq!(client.check(ask("other")).await.unwrap_err().code(), tonic::Code::NotFound);
        health.set_link(false);
    }
    // The port without TLS serves nothing else.
    let mut client = proto::channel::v1::channel_client::ChannelClient::new(probe);
    let status = client.get_status(proto::channel::v1::GetStatusRequest {}).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_drains_and_cuts_what_does_not_end() {
    let (mut server, theirs) = network().await;
    let health = server.running.health().clone();
    let (mut ours, peer) = open(&mut server, &theirs).await;
    server.stop.cancel();
    // While draining, what is under way goes on...
    peer.send(frame(1, 4)).await.unwrap();
    assert_eq!(number(&ours.receive().await.unwrap()), 1);
    // ...until the deadline.
    let stopped = tokio::time::timeout(Duration::from_secs(5), server.running.stopped()).await;
    stopped.expect("the deadline is kept").unwrap();
    assert!(!health.is_serving());
    assert!(ours.receive().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_calls_stops_at_once() {
    let (server, theirs) = network().await;
    let _client = dial(&server.endpoint(), "channel-a", &theirs).await.unwrap();
    server.stop.cancel();
    tokio::time::timeout(Duration::from_millis(250), server.running.stopped()).await.unwrap().unwrap();
}
