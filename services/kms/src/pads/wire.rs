//! The relay's requests as they come over the wire, and what they are once they are checked.

use anyhow::{Context, Result, ensure};
use proto::kms::v1::{Done, RelayAnswer, RelayRequest, VoidResult, relay_answer, relay_request::What};
use proto::relay::v1 as relay;
use transfer::{Header, PAYLOAD_BYTES_MAX, Path, SHARES_MAX, SiteName, TransferId};

use super::Outcome;

/// One request.
pub enum Asked {
    Originate(Header),
    Reseal(Header, Vec<u8>),
    Deliver(Header, Vec<u8>),
    Release(TransferId, Vec<TransferId>),
    Void(TransferId, Vec<TransferId>),
    Settle(TransferId, TransferId),
}

impl Asked {
    pub fn of(request: RelayRequest) -> Result<Self> {
        Ok(match request.what.context("a request asks for nothing")? {
            What::Originate(asked) => Self::Originate(header(asked.header)?),
            What::Reseal(asked) => Self::Reseal(header(asked.header)?, payload(&asked.payload)?),
            What::Deliver(asked) => Self::Deliver(header(asked.header)?, payload(&asked.payload)?),
            What::Release(asked) => Self::Release(id(&asked.group)?, ids(&asked.transfers)?),
            What::Void(asked) => Self::Void(id(&asked.group)?, ids(&asked.transfers)?),
            What::Settle(asked) => Self::Settle(id(&asked.group)?, id(&asked.transfer)?),
        })
    }

    /// The key that it is about.
    pub fn group(&self) -> TransferId {
        match self {
            Self::Originate(header) | Self::Reseal(header, _) | Self::Deliver(header, _) => header.group,
            Self::Release(group, _) | Self::Void(group, _) | Self::Settle(group, _) => *group,
        }
    }

    /// Whether it may be refused; what may not is tried until it is done.
    pub fn may_be_refused(&self) -> bool {
        matches!(self, Self::Originate(_) | Self::Reseal(..) | Self::Deliver(..))
    }
}

fn id(bytes: &[u8]) -> Result<TransferId> {
    Ok(TransferId(bytes.try_into().ok().context("an identity has 16 bytes")?))
}

fn ids(all: &[impl AsRef<[u8]>]) -> Result<Vec<TransferId>> {
    ensure!((1..=usize::from(SHARES_MAX)).contains(&all.len()), "a key has 1 to {SHARES_MAX} shares");
    all.iter().map(|bytes| id(bytes.as_ref())).collect()
}

fn payload(bytes: &[u8]) -> Result<Vec<u8>> {
    ensure!(bytes.len() <= PAYLOAD_BYTES_MAX, "a payload is too long");
    Ok(bytes.to_vec())
}

fn header(wire: Option<relay::Header>) -> Result<Header> {
    let wire = wire.context("a request without a header")?;
    let sites: Result<Vec<SiteName>, _> = wire.path.iter().map(|site| SiteName::parse(site)).collect();
    let header = Header {
        transfer: id(&wire.transfer)?,
        group: id(&wire.group)?,
        share: u8::try_from(wire.share)?,
        of: u8::try_from(wire.of)?,
        bytes: wire.bytes,
        path: Path::new(sites?)?,
        hop: u8::try_from(wire.hop)?,
    };
    header.check()?;
    Ok(header)
}

/// What the tag of a sealed key covers beside it: the transfer with its whole way, the same at every hop.
pub fn context(header: &Header) -> Vec<u8> {
    let mut context = Vec::with_capacity(64);
    context.extend_from_slice(&header.transfer.0);
    context.extend_from_slice(&header.group.0);
    context.extend_from_slice(&[header.share, header.of]);
    context.extend_from_slice(&header.bytes.to_le_bytes());
    for site in header.path.sites() {
        // A name has at most 63 bytes.
        context.push(site.as_str().len() as u8);
        context.extend_from_slice(site.as_str().as_bytes());
    }
    context
}

pub fn answer(request: u64, outcome: Outcome) -> RelayAnswer {
    let what = match outcome {
        Outcome::Sealed(payload) => relay_answer::What::Sealed(payload.into()),
        Outcome::Done => relay_answer::What::Done(Done {}),
        Outcome::Voided(results) => {
            let of = |wanted: bool| {
                let those = results.iter().filter(|(_, voided)| *voided == wanted);
                those.map(|(transfer, _)| transfer.0.to_vec().into()).collect()
            };
            relay_answer::What::Voided(VoidResult { voided: of(true), not_voided: of(false) })
        }
    };
    RelayAnswer { request, what: Some(what) }
}

pub fn refused(request: u64, reason: relay::Reason) -> RelayAnswer {
    RelayAnswer { request, what: Some(relay_answer::What::Refused(reason.into())) }
}
