//! Crowds at the door: what they open, from the application's own address, keeps the application from nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use etsi014::Limits;
use rustls::version::TLS13;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::support::{PATIENCE, Site, config, site_with};

const STATUS: &str = "/api/v1/keys/sae-b/status";
/// The crowd that stands there, and how many come on top, a few at a time.
const STANDING: usize = 4096;
const COMING: usize = 2048;
const AT_ONCE: usize = 16;
/// Requests of the application, each on a connection of its own, and how often it asks.
const REQUESTS: usize = 100;
const EVERY: Duration = Duration::from_millis(20);

/// The first bytes of a hello that never comes to its end: a record of 512 bytes.
const SLOW: [u8; 6] = [22, 3, 1, 2, 0, 1];

/// Opens a connection that says nothing, or only how a hello begins.
async fn loiter(address: SocketAddr, slow: bool) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    if slow {
        // A connection that was closed already takes no bytes.
        let _ = stream.write_all(&SLOW).await;
    }
    Some(stream)
}

/// Opens one connection after the other until there were enough of them or nobody wants them any more.
fn crowd(address: SocketAddr, enough: &CancellationToken) -> JoinHandle<usize> {
    let enough = enough.clone();
    tokio::spawn(async move {
        let mut held = Vec::with_capacity(COMING);
        let mut pulse = tokio::time::interval(Duration::from_millis(AT_ONCE as u64));
        while held.len() < COMING && !enough.is_cancelled() {
            pulse.tick().await;
            for number in 0..AT_ONCE {
                held.extend(loiter(address, number % 2 == 0).await);
            }
        }
        held.len()
    })
}

/// Times of the application's requests, each from the connection to the answer.
async fn serve_among(site: &Site) -> Vec<Duration> {
    let config = config(&site.pki, Some(&site.pki.sae("sae-a")), &TLS13);
    let mut took = Vec::with_capacity(REQUESTS);
    let mut pulse = tokio::time::interval(EVERY);
    for _ in 0..REQUESTS {
        pulse.tick().await;
        let began = Instant::now();
        let mut raw = site.dial(config.clone()).await.expect("a handshake");
        assert_eq!(raw.ask("GET", STATUS, "").await.status, 200);
        took.push(began.elapsed());
    }
    took.sort();
    took
}

/// How many files this process may have open.
fn open_files_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_slow_connections_by_the_thousand_from_its_own_address_keep_an_application_from_nothing() {
    // Less room than there is by default, so that a crowd for which few files need be open fills it.
    let site = site_with(Limits { handshakes: 1024, ..Limits::default() }).await;
    let address = site.server.address();
    // Both ends of every connection are here. A machine that allows fewer files gets a smaller crowd.
    let room = open_files_max().saturating_sub(1024 + COMING + 256);
    let standing = STANDING.min(room);
    println!("{standing} connections stand, up to {COMING} come");
    assert!(standing >= 1024, "too few files may be open here for this test: raise `ulimit -n`");
    let mut held = Vec::with_capacity(standing);
    for number in 0..standing {
        held.extend(loiter(address, number % 2 == 0).await);
    }
    let enough = CancellationToken::new();
    let crowd = crowd(address, &enough);
    let took = serve_among(&site).await;
    enough.cancel();
    let came = tokio::time::timeout(PATIENCE, crowd).await.unwrap().unwrap();
    println!("{came} came; p50 {:?}, p99 {:?}", took[REQUESTS / 2], took[REQUESTS * 99 / 100]);
    let counts = site.server.counts();
    assert_eq!(counts.handshakes_full + counts.handshakes_resumed, REQUESTS as u64);
    assert!(counts.refused_overload + counts.refused_timed_out > 0, "nobody was sent away: {counts:?}");
    assert_eq!(held.len(), standing);
}

#[tokio::test]
async fn a_handshake_among_others_than_fit_is_finished() {
    // Far more stand there than there is room for, and the application begins when all have come.
    let site = site_with(Limits { handshakes: 8, ..Limits::default() }).await;
    let address = site.server.address();
    let mut held = Vec::new();
    for number in 0..64 {
        held.extend(loiter(address, number % 2 == 0).await);
    }
    assert_eq!(site.ask("GET", STATUS, "").await.status, 200);
    let gave_way = async {
        while site.server.counts().refused_overload < 64 - 8 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gave_way).await.expect("they were let stand");
    drop(held);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_long_before_a_handshake_must_be_over() {
    let (first_byte, handshake) = (Duration::from_millis(50), 10 * PATIENCE);
    let site = site_with(Limits { first_byte, handshake, ..Limits::default() }).await;
    let held = loiter(site.server.address(), false).await;
    let closed = async {
        while site.server.counts().refused_timed_out == 0 {
            tokio::time::sleep(first_byte).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("it was let stand");
    drop(held);
}

#[tokio::test]
async fn applications_that_are_served_take_no_room_from_handshakes() {
    let site = site_with(Limits { handshakes: 1, ..Limits::default() }).await;
    let (mut a, mut b) = (site.connect("sae-a").await, site.connect("sae-b").await);
    for raw in [&mut a, &mut b] {
        assert_eq!(raw.ask("GET", "/api/v1/keys/sae-c/status", "").await.status, 200);
    }
    let mut c = site.connect("sae-c").await;
    assert_eq!(c.ask("GET", STATUS, "").await.status, 200);
    assert_eq!(site.server.counts().refused_overload, 0);
}
