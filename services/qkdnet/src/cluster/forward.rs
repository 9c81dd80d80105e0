//! A port of a pod as a port of this machine, as long as it is wanted.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Cluster;

/// A loopback port behind which a pod's port is.
pub struct Forward {
    pub address: SocketAddr,
    _stop: DropGuard,
}

impl Cluster {
    /// Listens on a free loopback port; each connection goes to the pod through the API server.
    pub async fn forward(&self, pod: &str, port: u16) -> Result<Forward> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen on a loopback port")?;
        let address = listener.local_addr().context("ask for the loopback port")?;
        let stop = CancellationToken::new();
        let (pods, pod, stopped) = (self.api::<Pod>(), pod.to_owned(), stop.clone());
        tokio::spawn(async move {
            loop {
                let connection = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stopped.cancelled() => return,
                };
                let Ok((stream, _)) = connection else { continue };
                let (pods, pod, stopped) = (pods.clone(), pod.clone(), stopped.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        carried = carry(&pods, &pod, port, stream) => {
                            if let Err(error) = carried {
                                tracing::warn!(%pod, port, "forwarding ended: {}", shell::chain(&error));
                            }
                        }
                        () = stopped.cancelled() => {}
                    }
                });
            }
        });
        Ok(Forward { address, _stop: stop.drop_guard() })
    }
}

async fn carry(pods: &Api<Pod>, pod: &str, port: u16, mut here: TcpStream) -> Result<()> {
    here.set_nodelay(true)?;
    let mut forwarder = pods.portforward(pod, &[port]).await.context("forward a port")?;
    let mut there = forwarder.take_stream(port).context("the API server forwards another port")?;
    // Either side may end it at any time.
    let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
    drop(there);
    forwarder.abort();
    Ok(())
}
