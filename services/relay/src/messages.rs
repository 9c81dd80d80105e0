//! Messages as they are on the wire. What comes in has been checked when it has one of `transfer`'s types.

use proto::kms::v1::{self as kms, RelayAnswer, RelayRequest, relay_answer, relay_request};
use proto::relay::v1::{self as wire, RelayMessage, relay_message::Message as What};
use transfer::{
    AckStatus, Header, KmsAnswer, KmsRequest, LINKS_MAX, LinkReport, LinkState, Malformed, Message, Path, Payload,
    Refusal, RefusalReason, SiteName, TransferId,
};

/// The message, and the trace that a key brings with it.
pub fn message_of(message: RelayMessage) -> Result<(Message, String), Malformed> {
    let plain = |message| Ok((message, String::new()));
    match message.message.ok_or(Malformed::PayloadSize)? {
        What::Carry(carry) => {
            let (header, payload) = (header_of(carry.header)?, Payload(carry.payload.to_vec()));
            Ok((Message::Carry { header, payload }, carry.traceparent))
        }
        What::Acknowledge(ack) => {
            let status = status_of(ack.status())?;
            let refusal = ack.refusal.map(|refusal| refusal_of(&refusal)).transpose()?;
            plain(Message::Ack { header: header_of(ack.header)?, status, refusal })
        }
        What::Void(void) => plain(Message::Void { header: header_of(void.header)? }),
        What::Settle(settle) => plain(Message::Settle { header: header_of(settle.header)? }),
        What::Settled(settled) => plain(Message::Settled { header: header_of(settled.header)? }),
        What::LinkState(state) => plain(Message::LinkState(link_state_of(state)?)),
    }
}

pub fn message(message: Message, traceparent: String) -> RelayMessage {
    let message = match message {
        Message::Carry { header: about, payload } => {
            What::Carry(wire::Carry { header: Some(header(&about)), payload: payload.0.into(), traceparent })
        }
        Message::Ack { header: about, status: what, refusal } => What::Acknowledge(wire::Acknowledge {
            header: Some(header(&about)),
            status: status(what).into(),
            refusal: refusal.map(|why| wire::Refusal { hop: why.hop.into(), reason: reason(why.reason).into() }),
        }),
        Message::Void { header: about } => What::Void(wire::VoidTransfer { header: Some(header(&about)) }),
        Message::Settle { header: about } => What::Settle(wire::Settle { header: Some(header(&about)) }),
        Message::Settled { header: about } => What::Settled(wire::Settled { header: Some(header(&about)) }),
        Message::LinkState(state) => What::LinkState(link_state(&state)),
    };
    RelayMessage { message: Some(message) }
}

pub fn header(header: &Header) -> wire::Header {
    wire::Header {
        transfer: header.transfer.0.to_vec().into(),
        group: header.group.0.to_vec().into(),
        share: header.share.into(),
        of: header.of.into(),
        bytes: header.bytes,
        path: header.path.sites().iter().map(ToString::to_string).collect(),
        hop: header.hop.into(),
    }
}

fn header_of(header: Option<wire::Header>) -> Result<Header, Malformed> {
    let header = header.ok_or(Malformed::PathTooShort)?;
    if header.path.len() > transfer::HOPS_MAX + 1 {
        return Err(Malformed::PathTooLong);
    }
    let sites: Result<Vec<SiteName>, Malformed> = header.path.iter().map(|site| SiteName::parse(site)).collect();
    let small = |number: u32, why| u8::try_from(number).map_err(|_| why);
    let header = Header {
        transfer: id_of(&header.transfer)?,
        group: id_of(&header.group)?,
        share: small(header.share, Malformed::Share)?,
        of: small(header.of, Malformed::Share)?,
        bytes: header.bytes,
        path: Path::new(sites?)?,
        hop: small(header.hop, Malformed::PathTooLong)?,
    };
    header.check()?;
    Ok(header)
}

fn id_of(bytes: &[u8]) -> Result<TransferId, Malformed> {
    bytes.try_into().map(TransferId).map_err(|_| Malformed::TransferSize)
}

fn link_state(state: &LinkState) -> wire::LinkState {
    let level = |link: &LinkReport| wire::LinkLevel {
        site: link.neighbour.to_string(),
        stored_bytes: link.stored_bytes,
        rate_bps: link.rate_bps,
        up: link.up,
    };
    wire::LinkState {
        site: state.site.to_string(),
        incarnation: state.incarnation,
        seq: state.seq,
        links: state.links.iter().map(level).collect(),
    }
}

fn link_state_of(state: wire::LinkState) -> Result<LinkState, Malformed> {
    if state.links.len() > LINKS_MAX {
        return Err(Malformed::Links);
    }
    let link = |level: &wire::LinkLevel| {
        let neighbour = SiteName::parse(&level.site)?;
        Ok(LinkReport { neighbour, stored_bytes: level.stored_bytes, rate_bps: level.rate_bps, up: level.up })
    };
    let links: Result<Vec<LinkReport>, Malformed> = state.links.iter().map(link).collect();
    let (site, incarnation, seq) = (SiteName::parse(&state.site)?, state.incarnation, state.seq);
    Ok(LinkState { site, incarnation, seq, links: links? })
}

fn status(status: AckStatus) -> wire::AckStatus {
    match status {
        AckStatus::Relayed => wire::AckStatus::Relayed,
        AckStatus::Failed => wire::AckStatus::Failed,
        AckStatus::Voided => wire::AckStatus::Voided,
        AckStatus::FailedToVoid => wire::AckStatus::FailedToVoid,
        AckStatus::KeyNotPresent => wire::AckStatus::KeyNotPresent,
    }
}

fn status_of(status: wire::AckStatus) -> Result<AckStatus, Malformed> {
    Ok(match status {
        wire::AckStatus::Relayed => AckStatus::Relayed,
        wire::AckStatus::Failed => AckStatus::Failed,
        wire::AckStatus::Voided => AckStatus::Voided,
        wire::AckStatus::FailedToVoid => AckStatus::FailedToVoid,
        wire::AckStatus::KeyNotPresent => AckStatus::KeyNotPresent,
        wire::AckStatus::Unspecified => return Err(Malformed::Share),
    })
}

fn refusal_of(refusal: &wire::Refusal) -> Result<Refusal, Malformed> {
    let hop = u8::try_from(refusal.hop).map_err(|_| Malformed::PathTooLong)?;
    Ok(Refusal { hop, reason: reason_of(refusal.reason()) })
}

fn reason(reason: RefusalReason) -> wire::Reason {
    match reason {
        RefusalReason::Insufficient => wire::Reason::InsufficientKey,
        RefusalReason::BadTag => wire::Reason::BadTag,
        RefusalReason::Unknown => wire::Reason::Unknown,
        RefusalReason::Busy => wire::Reason::Busy,
        RefusalReason::Unreachable => wire::Reason::Unreachable,
    }
}

/// A reason of a later version is one that is not known here.
fn reason_of(reason: wire::Reason) -> RefusalReason {
    match reason {
        wire::Reason::InsufficientKey => RefusalReason::Insufficient,
        wire::Reason::BadTag => RefusalReason::BadTag,
        wire::Reason::Busy => RefusalReason::Busy,
        wire::Reason::Unreachable => RefusalReason::Unreachable,
        wire::Reason::Unknown | wire::Reason::Unspecified => RefusalReason::Unknown,
    }
}

pub fn request(number: u64, request: &KmsRequest, traceparent: String) -> RelayRequest {
    use relay_request::What;
    let id = |id: &TransferId| id.0.to_vec().into();
    let ids = |ids: &[TransferId]| ids.iter().map(id).collect();
    let what = match request {
        KmsRequest::Originate { header: about, .. } => What::Originate(kms::Originate { header: Some(header(about)) }),
        KmsRequest::Reseal { header: about, payload, .. } => {
            What::Reseal(kms::Reseal { header: Some(header(about)), payload: payload.0.clone().into() })
        }
        KmsRequest::Deliver { header: about, payload, .. } => {
            What::Deliver(kms::DeliverShare { header: Some(header(about)), payload: payload.0.clone().into() })
        }
        KmsRequest::Release { group, transfers } => {
            What::Release(kms::Release { group: id(group), transfers: ids(transfers) })
        }
        KmsRequest::Void { group, transfers } => What::Void(kms::Void { group: id(group), transfers: ids(transfers) }),
        KmsRequest::Settle { group, transfer } => {
            What::Settle(kms::Settle { group: id(group), transfer: id(transfer) })
        }
    };
    RelayRequest { request: number, what: Some(what), traceparent }
}

/// What the key store's answer to a request is to the state machine. `None`: it makes no sense.
pub fn answers(request: &KmsRequest, answer: &RelayAnswer) -> Option<Vec<KmsAnswer>> {
    use relay_answer::What;
    let one = |answer| Some(vec![answer]);
    match (request, answer.what.as_ref()?) {
        (KmsRequest::Originate { header, .. } | KmsRequest::Reseal { header, .. }, What::Sealed(payload)) => {
            one(KmsAnswer::Sealed { transfer: header.transfer, payload: Payload(payload.to_vec()) })
        }
        (KmsRequest::Deliver { header, .. }, What::Done(_)) => one(KmsAnswer::Delivered { transfer: header.transfer }),
        (
            KmsRequest::Originate { header, .. }
            | KmsRequest::Reseal { header, .. }
            | KmsRequest::Deliver { header, .. },
            What::Refused(reason),
        ) => {
            let reason = reason_of(wire::Reason::try_from(*reason).unwrap_or_default());
            one(KmsAnswer::Refused { transfer: header.transfer, reason })
        }
        (KmsRequest::Release { group, .. }, What::Done(_)) => one(KmsAnswer::Released { group: *group }),
        (KmsRequest::Void { transfers, .. }, What::Voided(result)) => {
            let known = |id: &[u8]| id_of(id).ok().filter(|transfer| transfers.contains(transfer));
            let voided = result.voided.iter().map(|id| Some(KmsAnswer::Voided { transfer: known(id)? }));
            let kept = result.not_voided.iter().map(|id| Some(KmsAnswer::NotVoided { transfer: known(id)? }));
            voided.chain(kept).collect()
        }
        (KmsRequest::Settle { .. }, What::Done(_)) => Some(Vec::new()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn all() -> Vec<Message> {
        let path = ["a", "b", "c"].map(|site| SiteName::parse(site).unwrap()).to_vec();
        let id = TransferId([3; 16]);
        let about =
            Header { transfer: id, group: id, share: 0, of: 2, bytes: 99, path: Path::new(path).unwrap(), hop: 1 };
        let link = LinkReport { neighbour: about.path.get(1).unwrap().clone(), stored_bytes: 5, rate_bps: 6, up: true };
        let state = LinkState { site: about.path.origin().clone(), incarnation: 1, seq: 2, links: vec![link] };
        let refusal = Some(Refusal { hop: 2, reason: RefusalReason::Busy });
        vec![
            Message::Carry { header: about.clone(), payload: Payload(vec![1, 2, 3]) },
            Message::Ack { header: about.clone(), status: AckStatus::Relayed, refusal: None },
            Message::Ack { header: about.clone(), status: AckStatus::Failed, refusal },
            Message::Void { header: about.clone() },
            Message::Settle { header: about.clone() },
            Message::Settled { header: about },
            Message::LinkState(state),
        ]
    }

    #[test]
    fn every_message_comes_out_as_it_went_in() {
        for said in all() {
            let (heard, trace) = message_of(message(said.clone(), "trace".to_owned())).unwrap();
            assert_eq!(heard, said);
            assert_eq!(trace == "trace", matches!(said, Message::Carry { .. }));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(message_of(RelayMessage { message: None }).is_err());
        let spoil: [fn(&mut wire::Header); 6] = [
            |header| header.transfer = vec![1; 15].into(),
            |header| header.share = 300,
            |header| header.bytes = 0,
            |header| header.path = vec!["a".to_owned(); 3],
            |header| header.path = vec!["A".to_owned(), "b".to_owned()],
            |header| header.hop = 256,
        ];
        for spoil in spoil {
            let mut said = message(all().remove(0), String::new());
            let Some(What::Carry(carry)) = &mut said.message else { panic!("expected a key") };
            spoil(carry.header.as_mut().unwrap());
            assert!(message_of(said).is_err());
        }
    }
}
