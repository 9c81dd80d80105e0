//! Streams to the source and to the module's own channel over gRPC.

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use proto::channel::v1::channel_client::ChannelClient;
use proto::channel::v1::{ChannelMessage, ModuleMessage};
use proto::kms::v1::kms_client::KmsClient;
use proto::kms::v1::{Block, DeliverAnswer};
use proto::source::v1::source_client::SourceClient;
use proto::source::v1::{AnalyserUpdate, PhotonEpoch};
use shell::Connector;
use shell::dial::Dial;
use shell::duplex::{self, Duplex};

/// Messages that may wait in a stream beside what the transport holds.
const CAPACITY: usize = 3;

pub struct SourceDial(pub Connector);

impl Dial<AnalyserUpdate, PhotonEpoch> for SourceDial {
    fn dial(&self) -> BoxFuture<'_, Result<Duplex<AnalyserUpdate, PhotonEpoch>>> {
        Box::pin(async move {
            let channel = self.0.clone().connect().await?;
            let mut client = shell::limited!(SourceClient::new(channel));
            duplex::open(CAPACITY, |outgoing| async move { client.attach(outgoing).await }).await.context("attach")
        })
    }
}

pub struct ChannelDial(pub Connector);

impl Dial<ModuleMessage, ChannelMessage> for ChannelDial {
    fn dial(&self) -> BoxFuture<'_, Result<Duplex<ModuleMessage, ChannelMessage>>> {
        Box::pin(async move {
            let channel = self.0.clone().connect().await?;
            let mut client = shell::limited!(ChannelClient::new(channel));
            duplex::open(CAPACITY, |outgoing| async move { client.attach(outgoing).await }).await.context("attach")
        })
    }
}

pub struct KeyStoreDial(pub Connector);

impl Dial<Block, DeliverAnswer> for KeyStoreDial {
    fn dial(&self) -> BoxFuture<'_, Result<Duplex<Block, DeliverAnswer>>> {
        Box::pin(async move {
            let channel = self.0.clone().connect().await?;
            let mut client = shell::limited!(KmsClient::new(channel));
            duplex::open(CAPACITY, |outgoing| async move { client.deliver(outgoing).await }).await.context("attach")
        })
    }
}
