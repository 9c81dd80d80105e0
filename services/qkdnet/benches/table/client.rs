//! The load: applications at two sites in a process of their own, which takes its orders as lines of JSON and answers
//! each with one.

use std::io::{BufRead as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use etsi014::client::{Client, ClientError, Delivered, NewKeys};
use etsi014::supply::SaeId;
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};

/// What `table` is started with to be the load.
pub const ARGUMENT: &str = "load-client";
const CONNECTIONS: usize = 8;
/// Pause after a refusal for want of key.
const REFUSED_PAUSE: Duration = Duration::from_millis(2);

/// A key store, and an application that asks there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    pub url: String,
    pub authority: String,
    pub certificate: String,
    pub key: String,
    pub sae: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connecting {
    KeptAlive,
    NewResumed,
    NewFull,
}

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Master and slave.
    Meet(Box<(Place, Place)>),
    /// Takes keys at the master for a time, and keeps them.
    Take { seconds: f64, connecting: Connecting, per_second: Option<f64> },
    /// Fetches the oldest of the keys at the slave, and compares.
    Fetch { keys: usize, shuffled: bool },
}

/// What came of an order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub requests: usize,
    pub seconds: f64,
    /// Times without an answer for want of key.
    pub refused: usize,
    /// Requests that came to nothing in another way, and how the first of them did.
    pub failed: usize,
    pub failure: Option<String>,
    pub latencies_us: Vec<f32>,
    pub cpu_s: f64,
}

impl Report {
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}

/// A quantile of sorted figures.
pub fn quantile(sorted: &[f32], part: f64) -> f64 {
    sorted.get((sorted.len().saturating_sub(1) as f64 * part) as usize).copied().map_or(f64::NAN, f64::from)
}

// === The parent's end

pub struct Load {
    child: Child,
    orders: ChildStdin,
    answers: std::io::BufReader<ChildStdout>,
}

impl Load {
    pub fn start(master: Place, slave: Place) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start the load")?;
        let orders = child.stdin.take().context("no standard input")?;
        let answers = std::io::BufReader::new(child.stdout.take().context("no standard output")?);
        let mut load = Self { child, orders, answers };
        load.order(&Order::Meet(Box::new((master, slave))))?;
        Ok(load)
    }

    pub fn take(&mut self, seconds: f64, connecting: Connecting, per_second: Option<f64>) -> Result<Report> {
        let report = self.try_to_take(seconds, connecting, per_second)?;
        ensure!(report.failed == 0, "{} requests failed: {}", report.failed, report.failure.unwrap_or_default());
        Ok(report)
    }

    /// As [`Self::take`], where requests that fail are a figure like others.
    pub fn try_to_take(&mut self, seconds: f64, connecting: Connecting, per_second: Option<f64>) -> Result<Report> {
        self.order(&Order::Take { seconds, connecting, per_second })
    }

    /// Fetches the oldest of these keys, in the order in which they were taken or in any.
    pub fn fetch(&mut self, keys: usize, shuffled: bool) -> Result<Report> {
        self.order(&Order::Fetch { keys, shuffled })
    }

    fn order(&mut self, order: &Order) -> Result<Report> {
        serde_json::to_writer(&self.orders, order)?;
        writeln!(self.orders)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        // What went wrong it has said on its standard error.
        serde_json::from_str(&line).context("the load has ended")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === The load's end

/// Takes orders until there are no more.
pub fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut met: Option<Applications> = None;
    for line in std::io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let report = match order {
            Order::Meet(places) => {
                let (master, slave) = *places;
                met = Some(Applications { master, slave, keys: Vec::new() });
                Report::default()
            }
            Order::Take { seconds, connecting, per_second } => {
                let applications = met.as_mut().context("an order before the first meeting")?;
                runtime.block_on(applications.take(Duration::from_secs_f64(seconds), connecting, per_second))?
            }
            Order::Fetch { keys, shuffled } => {
                let applications = met.as_mut().context("an order before the first meeting")?;
                runtime.block_on(applications.fetch(keys, shuffled))?
            }
        };
        let mut output = std::io::stdout().lock();
        serde_json::to_writer(&mut output, &report)?;
        writeln!(output)?;
    }
    Ok(())
}

struct Applications {
    master: Place,
    slave: Place,
    /// Taken and not fetched yet, in the order of taking.
    keys: Vec<(Instant, Delivered)>,
}

#[derive(Default)]
struct Done {
    keys: Vec<(Instant, Delivered)>,
    latencies_us: Vec<f32>,
    refused: usize,
    failed: usize,
    failure: Option<String>,
}

impl Applications {
    async fn take(&mut self, time: Duration, connecting: Connecting, per_second: Option<f64>) -> Result<Report> {
        let slave = SaeId::new(self.slave.sae.clone())?;
        let (begun, cpu) = (Instant::now(), own_cpu_s()?);
        let pace = per_second.map(|rate| Duration::from_secs_f64(CONNECTIONS as f64 / rate));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..CONNECTIONS {
            let (client, slave) = (connect(&self.master, connecting)?, slave.clone());
            let offset = pace.map(|pace| pace.mul_f64(number as f64 / CONNECTIONS as f64));
            tasks.spawn(async move {
                let mut ticks = pace.map(|pace| {
                    let first = tokio::time::Instant::now() + offset.unwrap_or_default();
                    tokio::time::interval_at(first, pace)
                });
                let mut done = Done::default();
                while begun.elapsed() < time {
                    if let Some(ticks) = &mut ticks {
                        ticks.tick().await;
                    }
                    done.take_one(&client, &slave).await?;
                }
                anyhow::Ok(done)
            });
        }
        self.gather(tasks, begun, cpu).await
    }

    async fn fetch(&mut self, keys: usize, shuffled: bool) -> Result<Report> {
        let master = SaeId::new(self.master.sae.clone())?;
        let mut wanted: Vec<Delivered> = self.keys.drain(..keys.min(self.keys.len())).map(|(_, key)| key).collect();
        if shuffled {
            wanted.shuffle(&mut ChaCha20Rng::seed_from_u64(7));
        }
        let wanted = Arc::new(wanted);
        let (begun, cpu, next) = (Instant::now(), own_cpu_s()?, Arc::new(AtomicUsize::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (client, master) = (connect(&self.slave, Connecting::KeptAlive)?, master.clone());
            let (wanted, next) = (wanted.clone(), next.clone());
            tasks.spawn(async move {
                let mut done = Done::default();
                while let Some(key) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    done.fetch_one(&client, &master, key).await?;
                }
                anyhow::Ok(done)
            });
        }
        let kept = std::mem::take(&mut self.keys);
        let report = self.gather(tasks, begun, cpu).await;
        self.keys = kept;
        report
    }

    async fn gather(
        &mut self,
        mut tasks: tokio::task::JoinSet<Result<Done>>,
        begun: Instant,
        cpu: f64,
    ) -> Result<Report> {
        let mut report = Report::default();
        while let Some(done) = tasks.join_next().await {
            let mut done = done??;
            report.latencies_us.append(&mut done.latencies_us);
            report.refused += done.refused;
            report.failed += done.failed;
            report.failure = report.failure.or(done.failure);
            self.keys.append(&mut done.keys);
        }
        self.keys.sort_by_key(|(taken, _)| *taken);
        (report.seconds, report.cpu_s) = (begun.elapsed().as_secs_f64(), own_cpu_s()? - cpu);
        report.requests = report.latencies_us.len();
        Ok(report)
    }
}

impl Done {
    async fn take_one(&mut self, client: &Client, slave: &SaeId) -> Result<()> {
        let asked = Instant::now();
        match client.get_keys(slave, &NewKeys::default()).await {
            Ok(mut keys) => {
                self.latencies_us.push(asked.elapsed().as_secs_f32() * 1e6);
                ensure!(keys.len() == 1 && keys[0].key.len() == 32, "not the key that was asked for");
                self.keys.extend(keys.drain(..).map(|key| (asked, key)));
            }
            Err(ClientError::Refused { status: 503, .. }) => {
                self.refused += 1;
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            Err(error) => {
                self.failed += 1;
                let after = asked.elapsed();
                self.failure.get_or_insert_with(|| format!("after {after:.1?}: {:#}", anyhow::Error::from(error)));
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
        Ok(())
    }

    async fn fetch_one(&mut self, client: &Client, master: &SaeId, key: &Delivered) -> Result<()> {
        let asked = Instant::now();
        let fetched = client.get_keys_with_ids(master, &[key.id]).await.context("fetch a key")?;
        self.latencies_us.push(asked.elapsed().as_secs_f32() * 1e6);
        ensure!(fetched.len() == 1 && fetched[0] == *key, "the two ends of a key differ");
        Ok(())
    }
}

fn connect(place: &Place, connecting: Connecting) -> Result<Client> {
    let builder = Client::builder(&place.url, &place.authority, &place.certificate, &place.key);
    let builder = builder.keep_alive(connecting == Connecting::KeptAlive).resume(connecting != Connecting::NewFull);
    Ok(builder.build()?)
}

fn own_cpu_s() -> Result<f64> {
    crate::network::cpu_s(std::process::id())
}
