//! What the pods of a topology keep, each asked by the same command in its own container.

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::AttachParams;
use operator::layout::paths;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::scratch::Scratch;
use super::{Cluster, containers, with_data};

/// The binary in the image.
const PROGRAM: &str = "/usr/bin/qkdnet";
/// Pods that are asked at a time.
const ASKED_AT_ONCE: usize = 8;
/// Longest answer of one pod that is taken.
const ANSWER_LIMIT_BYTES: u64 = 256 << 20;
/// Longest complaint of one pod that is shown.
const COMPLAINT_LIMIT_BYTES: u64 = 4096;

/// What each link end answers to `qkdnet WORDS --data DIR --output json`: one list.
pub async fn link_ends<T: DeserializeOwned>(cluster: &Cluster, words: &[&str]) -> Result<Vec<T>> {
    rows(cluster, &["detector", "transmitter", "host"], words).await
}

/// The same of the key stores.
pub async fn stores<T: DeserializeOwned>(cluster: &Cluster, words: &[&str]) -> Result<Vec<T>> {
    rows(cluster, &["kms", "host"], words).await
}

/// Delivered keys that have passed through a site, as its and all other key stores know them.
pub async fn exposure<T: DeserializeOwned>(cluster: &Cluster, site: &str) -> Result<Vec<T>> {
    stores(cluster, &["exposure", site, "--elsewhere"]).await
}

/// The spans that the pods keep, in a folder of this machine for the time of one command.
pub async fn spans(cluster: &Cluster) -> Result<Scratch> {
    let pods = cluster.pods().await?;
    let asked = pods.iter().filter_map(|pod| Some((pod.name_any(), containers(pod).first()?.name.clone())));
    let asked: Vec<(String, String)> = asked.collect();
    let folder = Scratch::new()?;
    let folder_path = folder.path();
    futures::stream::iter(asked)
        .map(|(pod, container)| async move {
            let spans = cluster.ask(&pod, &container, &["spans", "--data", paths::RUN]).await?;
            let path = folder_path.join(format!("{pod}.spans.jsonl"));
            tokio::fs::write(&path, spans).await.with_context(|| format!("write {}", path.display()))
        })
        .buffered(ASKED_AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(folder)
}

async fn rows<T: DeserializeOwned>(cluster: &Cluster, names: &[&str], words: &[&str]) -> Result<Vec<T>> {
    let pods = cluster.pods().await?;
    let asked = pods.iter().filter_map(|pod| Some((pod.name_any(), with_data(pod, names)?.to_owned())));
    let asked: Vec<(String, String)> = asked.collect();
    ensure!(!asked.is_empty(), "no pod of `{}` keeps what was asked for", cluster.topology);
    let words: Vec<&str> = [words, &["--data", paths::DATA, "--output", "json"]].concat();
    let words = &words;
    let answers: Vec<Vec<T>> = futures::stream::iter(asked)
        .map(|(pod, container)| async move {
            let answer = cluster.ask(&pod, &container, words).await?;
            serde_json::from_slice(&answer).with_context(|| format!("understand the answer of {pod}"))
        })
        .buffered(ASKED_AT_ONCE)
        .try_collect()
        .await?;
    Ok(answers.into_iter().flatten().collect())
}

impl Cluster {
    /// Standard output of a command of the image in a container; an error holds what it said.
    pub async fn ask(&self, pod: &str, container: &str, words: &[&str]) -> Result<Vec<u8>> {
        let command: Vec<&str> = [&[PROGRAM], words].concat();
        let parameters = AttachParams::default().container(container);
        let started = self.api::<Pod>().exec(pod, command, &parameters).await;
        let mut process = started.with_context(|| format!("run {} in {pod}", words.first().unwrap_or(&"")))?;
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let ended = process.take_status();
        let (output, complaint) =
            tokio::try_join!(read(stdout, ANSWER_LIMIT_BYTES), read(stderr, COMPLAINT_LIMIT_BYTES))?;
        let status = match ended {
            Some(status) => status.await,
            None => None,
        };
        if status.is_none_or(|status| status.status.as_deref() == Some("Success")) {
            return Ok(output);
        }
        let complaint = String::from_utf8_lossy(&complaint);
        bail!("{pod}: {}", complaint.trim().trim_start_matches("error: "))
    }
}

/// Reads to the end; what is beyond the limit is read and dropped, so that the other end can go on.
async fn read(stream: Option<impl AsyncRead + Unpin>, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(mut stream) = stream else { return Ok(bytes) };
    (&mut stream).take(limit).read_to_end(&mut bytes).await.context("read what a pod answers")?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.context("read what a pod answers")?;
    Ok(bytes)
}
