//! What a key store hears from the peer of a pair, from its relay, and from modules: whole dialogues.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keystore::{KeyStore, MasterKey, Offer, SPAN_BYTES, Secret, Settings};
use kms::pair::{self, MESSAGES_IN_FLIGHT, PairStream, Pool, ShareOut};
use prost::Message;
use proto::kms::v1::{self as wire, Block, DeliverAnswer, PairMessage, RelayRequest};
use shell::duplex::Duplex;
use shell::handover::Handover;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::Target;

/// However a dialogue goes, it has ended by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// A key store on a disk of its own; each input finds it as the first one did.
struct Bench {
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new(peer: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        MasterKey::create(&folder.path().join("master.key")).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bench = Self { folder, runtime };
        let store = bench.open(Path::new("first"));
        bench.runtime.block_on(async { store.offer(peer, block(1)).await }).unwrap();
        store.close().unwrap();
        bench
    }

    fn open(&self, name: &Path) -> Arc<KeyStore> {
        let master = MasterKey::read(&self.folder.path().join("master.key")).unwrap();
        let settings = Settings { journal_bytes: 8 << 10, ..Settings::default() };
        Arc::new(KeyStore::open(&self.folder.path().join(name), &master, &settings).unwrap())
    }

    /// A copy of the store that may be spoilt.
    fn fresh(&self) -> Arc<KeyStore> {
        let (from, to) = (self.folder.path().join("first"), self.folder.path().join("spoilt"));
        let _ = fs::remove_dir_all(&to);
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let file = entry.unwrap().path();
            fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
        self.open(Path::new("spoilt"))
    }
}

fn block(number: u8) -> Offer {
    Offer {
        id: [number; 16],
        key: Secret::new(vec![number; 3000]),
        origin: String::new(),
        span: [0; SPAN_BYTES],
        offered_ms: 1,
        relayed: false,
    }
}

/// Between messages: what spoils one leaves the others.
const BETWEEN: &[u8] = b"\xfe\xed\xfa\xce";

/// The messages of an input; what is none is left out.
fn messages<M: Message + Default>(input: &[u8]) -> Vec<M> {
    let mut all = Vec::new();
    let mut rest = input;
    while all.len() < 64 && !rest.is_empty() {
        let end = rest.windows(BETWEEN.len()).position(|part| part == BETWEEN);
        all.extend(M::decode(&rest[..end.unwrap_or(rest.len())]).ok());
        rest = end.map_or(&[], |end| &rest[end + BETWEEN.len()..]);
    }
    all
}

fn written<M: Message>(messages: &[M]) -> Vec<u8> {
    messages.iter().map(Message::encode_to_vec).collect::<Vec<_>>().join(BETWEEN)
}

async fn say_all<A: Send + 'static, B>(end: Duplex<A, B>, messages: Vec<A>) {
    let (tx, mut rx) = end.split();
    let say = async {
        for message in messages {
            if tx.send(message).await.is_err() {
                break;
            }
        }
        drop(tx);
    };
    tokio::join!(say, async { while rx.recv().await.is_some() {} });
}

/// What a module says that has the store's key; one that names a key of its own sends its blocks as they are.
async fn hand_over(end: Duplex<Block, DeliverAnswer>, blocks: Vec<Block>) {
    if blocks.iter().any(|block| !block.public_key.is_empty()) {
        return say_all(end, blocks).await;
    }
    let Ok(mut store) = Handover::open(end).await else { return };
    for about in blocks {
        let key = about.sealed.clone();
        if store.send(about, &key).await.is_err() || store.taken().await.is_err() {
            return;
        }
    }
}

fn check(store: &KeyStore) {
    for peer in store.pools() {
        store.ledger(&peer).unwrap().check().unwrap();
    }
    assert_eq!(store.stopped(), None, "the store has stopped");
}

/// What both ends of a good dialogue say.
fn dialogue() -> [Vec<u8>; 2] {
    let (a, b) = (Bench::new("b"), Bench::new("a"));
    let (mut said, mut heard) = (Vec::new(), Vec::new());
    a.runtime.block_on(async {
        let (a, mut a_shares) = Pool::new(a.fresh(), "a", "b", true, 1024, 60_000);
        let (b, mut b_shares) = Pool::new(b.fresh(), "b", "a", true, 1024, 60_000);
        let (a_end, a_wire) = Duplex::pair(MESSAGES_IN_FLIGHT);
        let (b_end, b_wire) = Duplex::pair(MESSAGES_IN_FLIGHT);
        let ((a_tx, mut a_rx), (b_tx, mut b_rx)) = (a_wire.split(), b_wire.split());
        let carry =
            async |rx: &mut mpsc::Receiver<PairMessage>, tx: mpsc::Sender<PairMessage>, log: &mut Vec<PairMessage>| {
                while log.len() < 12
                    && let Some(message) = rx.recv().await
                {
                    log.push(message.clone());
                    let _ = tx.send(message).await;
                }
            };
        let _ = tokio::join!(
            async { pair::coordinate(&a, a_end, &mut a_shares).await },
            async { pair::follow(&b, b_end, &mut b_shares).await },
            carry(&mut a_rx, b_tx, &mut said),
            carry(&mut b_rx, a_tx, &mut heard),
        );
    });
    assert!(said.len() > 3 && heard.len() > 3, "{} and {} messages", said.len(), heard.len());
    [written(&said), written(&heard)]
}

/// A share of a multicast key, which a good dialogue of two stores does not have.
fn share() -> Vec<u8> {
    let share = wire::Share {
        key_id: vec![1; 16].into(),
        master_sae: "m".to_owned(),
        slave_saes: vec!["s".to_owned()],
        generation: 0,
        start: 0,
        sealed: vec![2; 32].into(),
        tag: vec![3; 16].into(),
        nonce: vec![4; 16].into(),
    };
    written(&[PairMessage { message: Some(wire::pair_message::Message::Share(share)) }])
}

type End = for<'p> fn(
    &'p Pool,
    PairStream,
    &'p mut mpsc::Receiver<ShareOut>,
) -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'p>>;

fn pair_fuzz(name: &'static str, (site, peer): (&'static str, &'static str), heard: Vec<u8>, end: End) {
    let bench = Bench::new(peer);
    let with_share = [heard.clone(), share()].join(BETWEEN);
    Target { share: 5, ..Target::new(name, vec![heard, with_share]) }.fuzz(|input| {
        let store = bench.fresh();
        let (pool, mut shares) = Pool::new(store.clone(), site, peer, true, 1024, 60_000);
        let ended = bench.runtime.block_on(async {
            let (ours, theirs) = Duplex::pair(MESSAGES_IN_FLIGHT);
            let talk = async { tokio::join!(end(&pool, ours, &mut shares), say_all(theirs, messages(input))).0 };
            tokio::time::timeout(PATIENCE, talk).await.expect("a dialogue without end")
        });
        check(&store);
        ended.map_or_else(|error| format!("{error:#}"), |()| "good".to_owned())
    });
}

#[test]
fn a_follower_hears_anything_of_its_coordinator() {
    let [said, _] = dialogue();
    pair_fuzz("follower", ("b", "a"), said, |pool, stream, shares| Box::pin(pair::follow(pool, stream, shares)));
}

#[test]
fn a_coordinator_hears_anything_of_its_follower() {
    let [_, said] = dialogue();
    pair_fuzz("coordinator", ("a", "b"), said, |pool, stream, shares| Box::pin(pair::coordinate(pool, stream, shares)));
}

#[test]
fn a_key_store_hears_anything_of_its_relay() {
    use wire::relay_request::What;
    let bench = Bench::new("b");
    let header = |hop| {
        Some(proto::relay::v1::Header {
            transfer: vec![3; 16].into(),
            group: vec![3; 16].into(),
            share: 0,
            of: 1,
            bytes: 64,
            path: ["a", "b", "c"].map(str::to_owned).to_vec(),
            hop,
        })
    };
    let id = || bytes::Bytes::from(vec![3; 16]);
    let requests: Vec<RelayRequest> = [
        What::Originate(wire::Originate { header: header(0) }),
        What::Reseal(wire::Reseal { header: header(1), payload: vec![0; 120].into() }),
        What::Deliver(wire::DeliverShare { header: header(2), payload: vec![0; 120].into() }),
        What::Release(wire::Release { group: id(), transfers: vec![id()] }),
        What::Void(wire::Void { group: id(), transfers: vec![id()] }),
        What::Settle(wire::Settle { group: id(), transfer: id() }),
    ]
    .into_iter()
    .enumerate()
    .map(|(at, what)| RelayRequest { request: at as u64 + 1, what: Some(what), traceparent: String::new() })
    .collect();
    Target { share: 5, ..Target::new("desk of the relay", vec![written(&requests)]) }.fuzz(|input| {
        let store = bench.fresh();
        let pools = ["b", "c"].map(|peer| {
            let (pool, _) = Pool::new(store.clone(), "a", peer, true, 1024, 60_000);
            (peer.to_owned(), pool)
        });
        let asked: Vec<RelayRequest> = messages(input);
        let answered = bench.runtime.block_on(async {
            let (ours, theirs) = Duplex::pair(MESSAGES_IN_FLIGHT);
            let (door, relays) = mpsc::channel(1);
            let stop = CancellationToken::new();
            let serve = kms::serve_relay(
                pools.map(|(_, pool)| pool).into_iter().collect(),
                "kms-a".to_owned(),
                relays,
                stop.clone(),
            );
            let (tx, mut rx) = theirs.split();
            let talk = async {
                door.send(ours).await.unwrap();
                for request in asked.iter().cloned() {
                    if tx.send(request).await.is_err() {
                        break;
                    }
                }
                // What is asked is answered, but for what makes no sense, which ends the stream, and what is a repetition.
                let (mut answers, until) = (0, tokio::time::Instant::now() + Duration::from_millis(300));
                while answers < asked.len()
                    && let Ok(Some(answer)) = tokio::time::timeout_at(until, rx.recv()).await
                {
                    answers += usize::from(answer.request != 0);
                }
                stop.cancel();
                answers
            };
            let both = async { tokio::join!(serve, talk) };
            let (served, answers) = tokio::time::timeout(PATIENCE, both).await.expect("a dialogue without end");
            served.unwrap();
            answers
        });
        check(&store);
        "asked ".repeat(asked.len().min(8)) + &"answered ".repeat(answered.min(8))
    });
}

#[test]
fn a_key_store_takes_blocks_of_a_module_or_leaves_it() {
    let bench = Bench::new("b");
    let good = |number: u64, bytes: usize| Block {
        link: "a-b".to_owned(),
        number,
        id: vec![number as u8 + 10; 16].into(),
        // What is to be sealed, here.
        sealed: vec![number as u8; bytes].into(),
        key_bits: 8 * bytes as u64 - 3,
        epoch: 100,
        public_key: Default::default(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    };
    let blocks = written(&[good(0, 40), good(1, 3)]);
    Target { share: 5, ..Target::new("blocks of modules", vec![blocks]) }.fuzz(|input| {
        let store = bench.fresh();
        let (pool, _) = Pool::new(store.clone(), "a", "b", true, 1024, 60_000);
        let pools = BTreeMap::from([("a-b".to_owned(), pool)]);
        let (tracer, stop) = (telemetry::trace::Tracer::new("kms-a"), CancellationToken::new());
        let ended = bench.runtime.block_on(async {
            let (ours, theirs) = Duplex::pair(MESSAGES_IN_FLIGHT);
            let talk = async {
                tokio::join!(
                    async { kms::ingest::take(&pools, &tracer, ours, &stop).await },
                    hand_over(theirs, messages(input)),
                )
                .0
            };
            tokio::time::timeout(PATIENCE, talk).await.expect("a dialogue without end")
        });
        check(&store);
        ended.map_or_else(|error| format!("{error:#}"), |()| "good".to_owned())
    });
}
