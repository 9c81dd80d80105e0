//! The process of one site: its key store on files, the modules that hand over blocks, and the socket of who drives it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anchor::FolderAnchor;
use anyhow::{Result, bail};
use futures::future::BoxFuture;
use keystore::Settings;
use prost::Message as _;
use proto::kms::v1::{Block, PairMessage, RelayAnswer, RelayRequest};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shell::dial::Dial;
use shell::duplex::Duplex;
use shell::handover::Handover;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::SITES;
use super::super::load::LINKS;
use super::super::site::{application, config};
use super::frame::{self, Frame, Kind};
use super::{FETCHED, GONE, KEY_BITS, OTHERWISE};
use crate::deliveries::Deliveries;
use crate::ingest::{BLOCKS_IN_FLIGHT, ModuleStream};
use crate::master;
use crate::node::{self, Incoming, PairDial, RelayStream};
use crate::pair::{MESSAGES_IN_FLIGHT, PairStream, Pool};
use crate::supplier::Supplier;
use etsi014::supply::{GetKey, KeyId, KeySupply, SaeId, SupplyError};

pub const FOLDER: &str = "KMS_STEPS_FOLDER";
pub const END: &str = "KMS_STEPS_END";
pub const SOCKET: &str = "KMS_STEPS_SOCKET";
/// So often are redemptions put from the journals into the database.
const JOURNAL_BYTES: u64 = 32 << 10;
/// Modules rest while so much lies in the pool.
const ENOUGH_BYTES: u64 = 512 << 10;
const BLOCK_BYTES: usize = 8 << 10;

type Said = mpsc::UnboundedSender<Frame>;

/// Not a test: what the tests of steps start, and abort.
#[test]
#[ignore = "a process of another test"]
fn one_site() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    let variable = |name: &str| std::env::var(name).expect("a variable of the test that started this");
    let (folder, end) = (variable(FOLDER), variable(END).parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ended = runtime.block_on(run(Path::new(&folder), end, &socket));
    if let Err(error) = &ended {
        eprintln!("{}", shell::chain(error));
    }
    // What is left to be said is said to nobody: as a service that has ended.
    std::process::exit(if ended.is_ok() { 0 } else { 3 });
}

async fn run(folder: &Path, end: usize, socket: &str) -> Result<()> {
    let (mut heard, writer) = UnixStream::connect(socket).await?.into_split();
    let said = frame::writer(writer);
    let config = config(end);
    let store_folder = keystore::folder(&folder.join("data"), SITES[end]);
    shell::files::create_private_folder(&store_folder)?;
    let anchor = Arc::new(FolderAnchor::open(&folder.join("anchors"))?);
    // What is redeemed in advance is so from the first request on: no greeting may speak of it.
    let redeem_in_advance_from = 0;
    let settings = Settings { journal_bytes: JOURNAL_BYTES, redeem_in_advance_from, anchor, ..node::settings(&config) };
    let store = master::open_store(&store_folder, &settings, &shell::disk::Disk::default())?;
    let node = node::on_store(&config, store, Deliveries::open(&store_folder)?, None).await?;
    let pool = node.pools.get(SITES[1 - end]).unwrap();
    let supplier = node.supplier.clone();

    let (modules_tx, modules) = mpsc::channel(4);
    let (pairs_tx, pairs) = mpsc::channel(4);
    let (relays_tx, relays) = mpsc::channel(1);
    let line = Arc::new(Line { said: said.clone(), current: Mutex::default() });
    let mut dials: BTreeMap<String, PairDial> = BTreeMap::new();
    if end == 0 {
        dials.insert(SITES[1].to_owned(), line.clone());
    }
    let (relay, wire): (RelayStream, Duplex<RelayRequest, RelayAnswer>) = Duplex::pair(64);
    relays_tx.send(relay).await?;
    let (relay_tx, mut relay_rx) = wire.split();
    tokio::spawn({
        let said = said.clone();
        async move {
            while let Some(answer) = relay_rx.recv().await {
                let _ = said.send(Frame::new(Kind::Relay, answer.request, answer.encode_to_vec()));
            }
        }
    });
    for link in 0..LINKS.len() {
        tokio::spawn(module(link, pool.clone(), modules_tx.clone()));
    }
    tokio::spawn(tell(pool, said.clone()));
    let stop = CancellationToken::new();
    let mut asked_to_end = signal(SignalKind::terminate())?;
    tokio::spawn({
        let stop = stop.clone();
        async move {
            asked_to_end.recv().await;
            stop.cancel();
        }
    });
    tokio::spawn({
        let stop = stop.clone();
        async move {
            while let Ok(frame) = frame::read(&mut heard).await {
                match frame.kind {
                    Kind::Open => line.take_up(frame.number, &pairs_tx),
                    Kind::Pair => line.hear(frame).await,
                    Kind::Close => line.close(frame.number),
                    Kind::Ask => drop(tokio::spawn(ask(end, supplier.clone(), said.clone(), frame))),
                    Kind::Fetch => drop(tokio::spawn(fetch(end, supplier.clone(), said.clone(), frame))),
                    Kind::Relay => drop(relay_tx.send(RelayRequest::decode(&frame.body[..]).unwrap()).await),
                    Kind::Arm => shell::failpoint::arm(std::str::from_utf8(&frame.body).unwrap(), true).unwrap(),
                    Kind::Stop => stop.cancel(),
                    Kind::Status => unreachable!("only said from here"),
                }
            }
            // The driver has gone.
            std::process::exit(4);
        }
    });
    let _open = relays_tx;
    node::run(node, dials, Incoming { modules, pairs, relays, relayed: mpsc::channel(1).1 }, stop).await
}

/// The way to the other key store: streams by number, of which the newest counts.
struct Line {
    said: Said,
    current: Mutex<Option<(u64, mpsc::Sender<PairMessage>)>>,
}

impl Line {
    fn begin(&self, number: u64) -> PairStream {
        let (ours, wire): (PairStream, PairStream) = Duplex::pair(MESSAGES_IN_FLIGHT);
        let (tx, mut rx) = wire.split();
        *self.current.lock().unwrap() = Some((number, tx));
        let said = self.said.clone();
        tokio::spawn(async move {
            while let Some(message) = rx.recv().await {
                let _ = said.send(Frame::new(Kind::Pair, number, message.encode_to_vec()));
            }
            let _ = said.send(Frame::new(Kind::Close, number, Vec::new()));
        });
        ours
    }

    fn take_up(&self, number: u64, door: &mpsc::Sender<(String, PairStream)>) {
        let stream = self.begin(number);
        if door.try_send((SITES[0].to_owned(), stream)).is_err() {
            self.close(number);
        }
    }

    async fn hear(&self, frame: Frame) {
        let current = self.current.lock().unwrap().clone();
        if let Some((number, tx)) = current
            && number == frame.number
        {
            // One that does not listen any more has ended.
            let _ = tx.send(PairMessage::decode(&frame.body[..]).unwrap()).await;
        }
    }

    fn close(&self, number: u64) {
        let mut current = self.current.lock().unwrap();
        if current.as_ref().is_some_and(|(known, _)| *known == number) {
            *current = None;
        }
    }
}

impl Dial<PairMessage, PairMessage> for Line {
    fn dial(&self) -> BoxFuture<'_, Result<PairStream>> {
        Box::pin(async move {
            let mut number = [0; 8];
            if getrandom::fill(&mut number).is_err() {
                bail!("no random bytes");
            }
            let number = u64::from_le_bytes(number);
            let _ = self.said.send(Frame::new(Kind::Open, number, Vec::new()));
            Ok(self.begin(number))
        })
    }
}

/// Blocks that both sites make alike: what one has handed over the other hands over, too, sooner or later.
async fn module(link: usize, pool: Arc<Pool>, store: mpsc::Sender<ModuleStream>) {
    loop {
        let (ours, theirs) = Duplex::pair(BLOCKS_IN_FLIGHT);
        if store.send(theirs).await.is_err() {
            return;
        }
        if let Ok(store) = Handover::open(ours).await {
            deliver(link, &pool, store).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn deliver(link: usize, pool: &Pool, mut store: Handover) {
    // Once more the one whose receipt may have been lost.
    let mut number = pool.handed_over(LINKS[link]).unwrap_or(0);
    loop {
        let levels = pool.levels();
        if levels.stored_bytes + levels.offered_bytes > ENOUGH_BYTES {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(number << 8 | link as u64);
        let (mut id, mut key) = ([0; 16], vec![0; BLOCK_BYTES]);
        rng.fill_bytes(&mut id);
        rng.fill_bytes(&mut key);
        let key_bits = 8 * key.len() as u64;
        let block =
            Block { link: LINKS[link].to_owned(), number, id: id.to_vec().into(), key_bits, ..Block::default() };
        if store.send(block, &key).await.is_err() || store.taken().await.is_err() {
            return;
        }
        number += 1;
    }
}

async fn tell(pool: Arc<Pool>, said: Said) {
    let mut before = None;
    loop {
        let rolled_back = pool.rolled_back().map(|known| format!("{}: {}", known.site, known.why)).unwrap_or_default();
        let now = [&[u8::from(pool.connected())][..], rolled_back.as_bytes()].concat();
        if before.as_ref() != Some(&now) {
            let _ = said.send(Frame::new(Kind::Status, 0, now.clone()));
            before = Some(now);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn sae(end: usize) -> SaeId {
    SaeId::new(application(end)).unwrap()
}

async fn ask(end: usize, supplier: Arc<Supplier>, said: Said, frame: Frame) {
    let (master, slave, span) = (sae(end), sae(1 - end), tracing::Span::none());
    let (number, size_bits) = (u32::from(frame.body[0]), KEY_BITS);
    let request = GetKey { master: &master, slave: &slave, additional: &[], number, size_bits, span: &span };
    let keys = supplier.get_key(request).await.unwrap_or_default();
    let body: Vec<u8> = keys.iter().flat_map(|supplied| [&supplied.id.0[..], supplied.key.expose()].concat()).collect();
    let _ = said.send(Frame::new(Kind::Ask, frame.number, body));
}

async fn fetch(end: usize, supplier: Arc<Supplier>, said: Said, frame: Frame) {
    let (slave, master) = (sae(end), sae(1 - end));
    let id = KeyId(frame.body[..].try_into().unwrap());
    let body = match supplier.get_key_with_ids(&slave, &master, &[id]).await {
        Ok(keys) => [&[FETCHED][..], keys[0].key.expose()].concat(),
        Err(SupplyError::NotFound { .. }) => vec![GONE],
        Err(_) => vec![OTHERWISE],
    };
    let _ = said.send(Frame::new(Kind::Fetch, frame.number, body));
}
