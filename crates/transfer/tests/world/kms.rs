//! A KMS per site with real bytes: pads are positions in the stream that both ends of a pool share, each used once.

use std::collections::{BTreeMap, BTreeSet};

use transfer::{Header, KmsAnswer, KmsRequest, Payload, RefusalReason, SiteName, TransferId};

const TAG_BYTES: usize = 8;

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn digest(parts: &[&[u8]]) -> u64 {
    parts.iter().flat_map(|part| part.iter()).fold(7, |sum, byte| mix(sum ^ u64::from(*byte)))
}

/// The pads of one direction of one link.
#[derive(Default)]
pub struct Pool {
    pub stored_bytes: u64,
    position: u64,
    /// Who drew: each transfer at most once.
    drawn: BTreeMap<TransferId, u64>,
    redeemed: BTreeSet<u64>,
}

#[derive(Default)]
pub struct Pools(pub BTreeMap<(SiteName, SiteName), Pool>);

impl Pools {
    fn pad(key: &(SiteName, SiteName), start: u64, bytes: usize) -> Vec<u8> {
        let stream = digest(&[key.0.as_str().as_bytes(), b">", key.1.as_str().as_bytes()]);
        (0..bytes as u64).map(|at| mix(stream ^ mix(start + at)) as u8).collect()
    }

    fn tag(pad: &[u8], transfer: TransferId, text: &[u8]) -> [u8; TAG_BYTES] {
        digest(&[pad, &transfer.0, text]).to_le_bytes()
    }

    fn can_seal(&self, key: &(SiteName, SiteName), bytes: usize) -> bool {
        self.0.get(key).is_some_and(|pool| pool.stored_bytes >= bytes as u64)
    }

    fn seal(&mut self, key: &(SiteName, SiteName), transfer: TransferId, plain: &[u8]) -> Payload {
        let pool = self.0.get_mut(key).expect("a pool for every link");
        let start = pool.position;
        pool.position += plain.len() as u64;
        pool.stored_bytes -= plain.len() as u64;
        let before = pool.drawn.insert(transfer, plain.len() as u64);
        assert_eq!(before, None, "{transfer} drew a second pad from {key:?}");
        let pad = Self::pad(key, start, plain.len());
        let text: Vec<u8> = plain.iter().zip(&pad).map(|(plain, pad)| plain ^ pad).collect();
        let tag = Self::tag(&pad, transfer, &text);
        Payload([&start.to_le_bytes()[..], &text, &tag].concat())
    }

    /// The plain text and the position of its pad, which the caller must redeem.
    fn open(
        &self,
        key: &(SiteName, SiteName),
        header: &Header,
        payload: &Payload,
    ) -> Result<(u64, Vec<u8>), RefusalReason> {
        let (start, rest) = payload.0.split_first_chunk::<8>().ok_or(RefusalReason::BadTag)?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(RefusalReason::BadTag)?;
        let start = u64::from_le_bytes(*start);
        let pool = self.0.get(key).ok_or(RefusalReason::Unknown)?;
        if pool.redeemed.contains(&start) || start >= pool.position {
            return Err(RefusalReason::Unknown);
        }
        let pad = Self::pad(key, start, text.len());
        if text.len() != header.bytes as usize || *tag != Self::tag(&pad, header.transfer, text) {
            return Err(RefusalReason::BadTag);
        }
        Ok((start, text.iter().zip(&pad).map(|(text, pad)| text ^ pad).collect()))
    }

    fn redeem(&mut self, key: &(SiteName, SiteName), start: u64) {
        assert!(self.0.get_mut(key).expect("a pool").redeemed.insert(start), "a pad was redeemed twice");
    }

    /// Checks that every transfer drew what it weighs, and gives the hops at which it did.
    pub fn hops_of(&self, transfer: TransferId, bytes: u32) -> BTreeSet<(SiteName, SiteName)> {
        let drew = self.0.iter().filter_map(|(key, pool)| Some((key, *pool.drawn.get(&transfer)?)));
        drew.map(|(key, drawn)| {
            assert_eq!(drawn, u64::from(bytes), "{transfer} drew {drawn} bytes at {key:?}");
            key.clone()
        })
        .collect()
    }

    /// All that was ever drawn from the pads of one direction of a link.
    pub fn drawn_bytes(&self, from: &SiteName, to: &SiteName) -> u64 {
        self.0.get(&(from.clone(), to.clone())).map_or(0, |pool| pool.drawn.values().sum())
    }

    pub fn draws(&self) -> usize {
        self.0.values().map(|pool| pool.drawn.len()).sum()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Pending,
    Good,
    Void,
}

/// A share at one of its two owners.
#[derive(Clone)]
pub struct Share {
    pub header: Header,
    pub key: Vec<u8>,
    payload: Payload,
    pub fate: Fate,
}

#[derive(Default)]
pub struct Kms {
    pub originated: BTreeMap<TransferId, Share>,
    pub delivered: BTreeMap<TransferId, Share>,
    resealed: BTreeMap<TransferId, Payload>,
    /// What passed through in the clear at a site between, for the exposure check.
    pub seen: BTreeMap<TransferId, Vec<u8>>,
}

impl Kms {
    pub fn answer(&mut self, site: &SiteName, pools: &mut Pools, request: KmsRequest) -> Vec<KmsAnswer> {
        match request {
            KmsRequest::Originate { header, next } => vec![self.originate(site, pools, header, next)],
            KmsRequest::Reseal { header, from, to, payload } => {
                let transfer = header.transfer;
                vec![match self.reseal(site, pools, &header, (from, to), &payload) {
                    Ok(payload) => KmsAnswer::Sealed { transfer, payload },
                    Err(reason) => KmsAnswer::Refused { transfer, reason },
                }]
            }
            KmsRequest::Deliver { header, from, payload } => {
                let transfer = header.transfer;
                vec![match self.deliver(site, pools, header, from, payload) {
                    Ok(()) => KmsAnswer::Delivered { transfer },
                    Err(reason) => KmsAnswer::Refused { transfer, reason },
                }]
            }
            KmsRequest::Release { group, transfers } => {
                for transfer in transfers {
                    let share = self.originated.get_mut(&transfer).expect("released what was never made");
                    assert_ne!(share.fate, Fate::Void, "released what was void");
                    share.fate = Fate::Good;
                }
                vec![KmsAnswer::Released { group }]
            }
            KmsRequest::Void { transfers, .. } => transfers.into_iter().map(|transfer| self.void(transfer)).collect(),
            KmsRequest::Settle { transfer, .. } => {
                self.resealed.remove(&transfer);
                if let Some(share) = self.delivered.get_mut(&transfer) {
                    assert_ne!(share.fate, Fate::Void, "settled what was void");
                    share.fate = Fate::Good;
                }
                Vec::new()
            }
        }
    }

    fn originate(&mut self, site: &SiteName, pools: &mut Pools, header: Header, next: SiteName) -> KmsAnswer {
        let transfer = header.transfer;
        if let Some(share) = self.originated.get(&transfer) {
            return KmsAnswer::Sealed { transfer, payload: share.payload.clone() };
        }
        let pool = (site.clone(), next);
        if !pools.can_seal(&pool, header.bytes as usize) {
            return KmsAnswer::Refused { transfer, reason: RefusalReason::Insufficient };
        }
        let start = digest(&[b"key", &transfer.0]);
        let key: Vec<u8> = (0..u64::from(header.bytes)).map(|at| mix(start ^ mix(at)) as u8).collect();
        let payload = pools.seal(&pool, transfer, &key);
        self.originated.insert(transfer, Share { header, key, payload: payload.clone(), fate: Fate::Pending });
        KmsAnswer::Sealed { transfer, payload }
    }

    fn reseal(
        &mut self,
        site: &SiteName,
        pools: &mut Pools,
        header: &Header,
        (from, to): (SiteName, SiteName),
        payload: &Payload,
    ) -> Result<Payload, RefusalReason> {
        if let Some(sealed) = self.resealed.get(&header.transfer) {
            return Ok(sealed.clone());
        }
        let (incoming, outgoing) = ((from, site.clone()), (site.clone(), to));
        let (start, plain) = pools.open(&incoming, header, payload)?;
        if !pools.can_seal(&outgoing, plain.len()) {
            return Err(RefusalReason::Insufficient);
        }
        pools.redeem(&incoming, start);
        let sealed = pools.seal(&outgoing, header.transfer, &plain);
        self.resealed.insert(header.transfer, sealed.clone());
        self.seen.insert(header.transfer, plain);
        Ok(sealed)
    }

    fn deliver(
        &mut self,
        site: &SiteName,
        pools: &mut Pools,
        header: Header,
        from: SiteName,
        payload: Payload,
    ) -> Result<(), RefusalReason> {
        match self.delivered.get(&header.transfer).map(|share| share.fate) {
            Some(Fate::Pending) => return Ok(()),
            Some(Fate::Good | Fate::Void) => return Err(RefusalReason::Unknown),
            None => {}
        }
        let pool = (from, site.clone());
        let (start, key) = pools.open(&pool, &header, &payload)?;
        pools.redeem(&pool, start);
        self.delivered.insert(header.transfer, Share { header, key, payload, fate: Fate::Pending });
        Ok(())
    }

    fn void(&mut self, transfer: TransferId) -> KmsAnswer {
        let share = self.originated.get_mut(&transfer).or_else(|| self.delivered.get_mut(&transfer));
        match share {
            Some(share) if share.fate == Fate::Good => return KmsAnswer::NotVoided { transfer },
            Some(share) => share.fate = Fate::Void,
            None => {}
        }
        KmsAnswer::Voided { transfer }
    }
}
