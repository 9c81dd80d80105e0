//! Stretches of the block that is being sifted, where it may take longer than a session lasts:
//! `<data>/<site>/<link>/stretches`, a sealed file for each.
//!
//! They are a chain: each is of rounds behind those of the one before it. One is there as a whole or not at all. The
//! last one may be there at this end alone; what both ends have is said in their greetings, and settled under a tag.
//! Nothing was promised of a stretch that cannot be read: it is given up, with all behind it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use distill::bits::Bits;
use distill::bounds::Evidence;
use distill::ledger::BlockLedger;
use distill::pipeline::{Material, OFFERS, Offer, Stretch};
use distill::sifting::Detected;
use serde::{Deserialize, Serialize};
use shell::disk::Disk;
use zeroize::Zeroizing;

use crate::sealed::SealedFolder;

const FOLDER: &str = "stretches";
const PURPOSE: &[u8] = b"stretches";
const EXTENSION: &str = "stretch";

/// What of a stretch is no key. It is sealed, too.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    /// The block that it was of when it was sifted.
    block: u64,
    rounds: u64,
    tag_pairs: u64,
    protocol: u64,
    digest: [u8; 32],
    frames: u64,
    key_bits: u64,
    has_decoys: bool,
    evidence: Evidence,
    detected: Detected,
    account: BlockLedger,
}

impl About {
    fn of(block: u64, stretch: &Stretch) -> Self {
        let Stretch { rounds, tag_pairs, protocol, digest, ref material } = *stretch;
        let Material { frames, ref key, ref decoys, evidence, detected, ref account } = *material;
        let (key_bits, has_decoys, account) = (key.len() as u64, decoys.is_some(), account.clone());
        Self { block, rounds, tag_pairs, protocol, digest, frames, key_bits, has_decoys, evidence, detected, account }
    }
}

/// The stretches that one link end keeps.
pub struct Stretches {
    folder: SealedFolder,
    chain: Vec<About>,
}

impl Stretches {
    /// For the link end whose folder this is.
    pub fn open(end: &Path, placed: Option<&Path>, disk: Disk) -> Result<Self> {
        let folder = SealedFolder::open(end, FOLDER, PURPOSE, placed, disk)?;
        let mut stretches = Self { folder, chain: Vec::new() };
        while let Some(about) = stretches.read_next()? {
            stretches.chain.push(about);
        }
        stretches.erase_others()?;
        Ok(stretches)
    }

    /// Whether there are any for the link end whose folder this is, readable or not.
    pub fn are_there(end: &Path) -> Result<bool> {
        let folder = end.join(FOLDER);
        Ok(folder.exists() && !crate::sealed::names(&folder)?.is_empty())
    }

    /// The stretch behind those that are known.
    fn read_next(&self) -> Result<Option<About>> {
        let index = self.chain.len();
        match self.read(index) {
            Ok(Some((about, _))) if about.rounds > self.rounds() => Ok(Some(about)),
            Ok(None) => Ok(None),
            Ok(Some(_)) => {
                tracing::warn!("{}: not behind the one before it: given up", self.path(index).display());
                Ok(None)
            }
            Err(error) => {
                tracing::warn!("{}: given up, it cannot be read: {}", self.path(index).display(), shell::chain(&error));
                Ok(None)
            }
        }
    }

    /// Erases what no stretch of the chain is: what cannot be read, and what was being written or erased in a crash.
    fn erase_others(&self) -> Result<()> {
        let known: Vec<String> = (0..self.chain.len()).map(name).collect();
        for found in self.folder.names()? {
            if !known.iter().any(|name| found == name.as_str()) {
                self.folder.erase(&found)?;
            }
        }
        Ok(())
    }

    fn path(&self, index: usize) -> std::path::PathBuf {
        self.folder.path(name(index))
    }

    /// Rounds of sifting that all of them are of.
    pub fn rounds(&self) -> u64 {
        self.chain.last().map_or(0, |about| about.rounds)
    }

    /// Frames of light that they are of.
    pub fn frames(&self) -> u64 {
        self.chain.iter().map(|about| about.frames).sum()
    }

    /// What the next greeting names.
    pub fn offers(&self) -> Vec<Offer> {
        self.chain.iter().rev().take(OFFERS).map(|about| Offer::new(about.rounds, &about.digest)).collect()
    }

    /// Whether all of them are of a link that is configured like this.
    pub fn are_of(&self, protocol: u64) -> bool {
        self.chain.iter().all(|about| about.protocol == protocol)
    }

    /// Those up to this many rounds, which both ends have.
    pub fn load(&self, rounds: u64) -> Result<Vec<Stretch>> {
        let taken = self.chain.iter().take_while(|about| about.rounds <= rounds).count();
        let stretches: Vec<Stretch> = (0..taken)
            .map(|index| {
                let (about, bits) =
                    self.read(index)?.with_context(|| format!("{} has gone", self.path(index).display()))?;
                stretch(about, &bits).with_context(|| format!("{} is damaged", self.path(index).display()))
            })
            .collect::<Result<_>>()?;
        ensure!(stretches.last().map_or(0, |last| last.rounds) == rounds, "no stretch ends with round {rounds}");
        Ok(stretches)
    }

    /// Puts the next one on the disk.
    pub fn keep(&mut self, block: u64, stretch: &Stretch) -> Result<()> {
        ensure!(stretch.rounds > self.rounds(), "a stretch of rounds that are kept");
        let (index, about) = (self.chain.len(), About::of(block, stretch));
        let head = serde_json::to_vec(&about).context("write a stretch")?;
        let Material { key, decoys, .. } = &stretch.material;
        let mut plain = Zeroizing::new(Vec::with_capacity(8 + head.len() + 2 * (key.len() / 8 + 1)));
        plain.extend_from_slice(&(head.len() as u64).to_le_bytes());
        plain.extend_from_slice(&head);
        for bits in std::iter::once(key).chain(decoys) {
            plain.extend_from_slice(&Zeroizing::new(bits.to_bytes()));
        }
        self.folder.put(&name(index), &[], &place(index), &plain)?;
        self.chain.push(about);
        Ok(())
    }

    /// Gives up those beyond this many rounds: of which block they were, and their account.
    pub fn settle(&mut self, rounds: u64) -> Result<Option<(u64, BlockLedger)>> {
        let keep = self.chain.iter().take_while(|about| about.rounds <= rounds).count();
        let mut account = BlockLedger::default();
        self.chain[keep..].iter().for_each(|about| account.add(&about.account));
        account.void();
        let block = self.chain.last().map(|about| about.block);
        let given_up = self.chain.len() > keep;
        self.erase_from(keep)?;
        Ok(block.filter(|_| given_up).map(|block| (block, account)))
    }

    /// Erases all of them: their bits are reconciled from now on.
    pub fn spend(&mut self) -> Result<()> {
        self.erase_from(0)
    }

    /// From the last one on, so that a crash leaves a chain.
    fn erase_from(&mut self, keep: usize) -> Result<()> {
        while self.chain.len() > keep {
            self.folder.erase(name(self.chain.len() - 1))?;
            self.chain.pop();
        }
        Ok(())
    }

    fn read(&self, index: usize) -> Result<Option<(About, Zeroizing<Vec<u8>>)>> {
        let Some(sealed) = self.folder.get(&name(index))? else { return Ok(None) };
        let plain = self.folder.unseal(&place(index), &sealed).context("damaged, or sealed under another key")?;
        parse(plain.expose()).map(Some)
    }
}

/// Splits what was sealed into what is no key, and bits.
fn parse(plain: &[u8]) -> Result<(About, Zeroizing<Vec<u8>>)> {
    let (length, rest) = plain.split_first_chunk::<8>().context("cut")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|length| *length <= rest.len());
    let (head, bits) = rest.split_at(length.context("cut")?);
    let about: About = serde_json::from_slice(head).context("not a stretch of this version")?;
    let bytes = about.key_bits.div_ceil(8).checked_mul(1 + u64::from(about.has_decoys));
    ensure!(bytes == Some(bits.len() as u64), "bits of another length than it says");
    Ok((about, Zeroizing::new(bits.to_vec())))
}

fn stretch(about: About, bits: &[u8]) -> Result<Stretch> {
    let len = usize::try_from(about.key_bits).context("too long")?;
    let (key, decoys) = bits.split_at(len.div_ceil(8));
    let decoys = about.has_decoys.then(|| Bits::from_bytes(decoys, len));
    let About { rounds, tag_pairs, protocol, digest, frames, evidence, detected, account, .. } = about;
    let key = Bits::from_bytes(key, len);
    let material = Material { frames, key, decoys, evidence, detected, account };
    Ok(Stretch { rounds, tag_pairs, protocol, digest, material })
}

fn name(index: usize) -> String {
    format!("{index}.{EXTENSION}")
}

/// Binds what is sealed to its place in the chain.
fn place(index: usize) -> Vec<u8> {
    (index as u64).to_le_bytes().to_vec()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use distill::ledger::Line;

    use super::*;

    fn stretch(rounds: u64, len: usize, has_decoys: bool) -> Stretch {
        let bits = |seed: u64| {
            let words = (0..len.div_ceil(64) as u64).map(|i| (seed + i).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            Bits::from_words(words.collect(), len)
        };
        let mut account = BlockLedger::default();
        account.set(Line::SIFTED_KEY, len as u64);
        account.set(Line::CHECK_DISCLOSED, 40);
        let material = Material {
            frames: 7,
            key: bits(rounds),
            decoys: has_decoys.then(|| bits(rounds + 1000)),
            evidence: Evidence::CheckBits { bits: 40, errors: 3 },
            detected: Detected { pulses: 1000, events: [5, 2, 1] },
            account,
        };
        Stretch { rounds, tag_pairs: rounds, protocol: 77, digest: [rounds as u8; 32], material }
    }

    fn open(folder: &Path) -> Stretches {
        let end = folder.join("dot/time-bins");
        shell::files::create_private_folder(&end).unwrap();
        Stretches::open(&end, None, Disk::default()).unwrap()
    }

    fn assert_same(own: &Stretch, other: &Stretch) {
        assert_eq!((own.rounds, own.tag_pairs, own.digest), (other.rounds, other.tag_pairs, other.digest));
        let (own, other) = (&own.material, &other.material);
        assert!(own.key.ct_eq(&other.key));
        assert_eq!(own.decoys.is_some(), other.decoys.is_some());
        assert!(own.decoys.iter().zip(&other.decoys).all(|(own, other)| own.ct_eq(other)));
        assert_eq!((own.frames, own.evidence, own.detected), (other.frames, other.evidence, other.detected));
        assert_eq!(own.account, other.account);
    }

    #[test]
    fn what_is_kept_is_sealed_and_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let kept = [stretch(1, 1003, true), stretch(4, 0, false), stretch(5, 64, false)];
        let mut stretches = open(folder.path());
        kept.iter().for_each(|stretch| stretches.keep(3, stretch).unwrap());
        assert!(stretches.keep(3, &kept[2]).is_err(), "nothing is kept twice");
        let on_disk = std::fs::read(stretches.path(0)).unwrap();
        let key = kept[0].material.key.to_bytes();
        assert!(!on_disk.windows(16).any(|part| key.windows(16).any(|of_key| of_key == part)));
        let stretches = open(folder.path());
        assert_eq!((stretches.rounds(), stretches.frames()), (5, 21));
        assert_eq!(stretches.offers(), [Offer::new(5, &[5; 32]), Offer::new(4, &[4; 32])]);
        assert!(stretches.are_of(77) && !stretches.are_of(78));
        let loaded = stretches.load(5).unwrap();
        assert_eq!(loaded.len(), 3);
        kept.iter().zip(&loaded).for_each(|(kept, loaded)| assert_same(kept, loaded));
        assert_eq!(stretches.load(4).unwrap().len(), 2);
        assert!(stretches.load(0).unwrap().is_empty());
        assert!(stretches.load(3).is_err(), "no stretch ends there");
    }

    #[test]
    fn what_only_one_end_has_is_given_up_and_accounted_for_and_what_is_spent_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut stretches = open(folder.path());
        (1..=3).for_each(|rounds| stretches.keep(9, &stretch(rounds, 100, false)).unwrap());
        assert_eq!(stretches.settle(3).unwrap(), None);
        let (block, account) = stretches.settle(1).unwrap().unwrap();
        assert_eq!((block, account.get(Line::VOIDED), account.get(Line::CHECK_VOIDED)), (9, 200, 80));
        account.check().unwrap();
        stretches.keep(9, &stretch(2, 50, false)).unwrap();
        let mut stretches = open(folder.path());
        assert_eq!(stretches.load(2).unwrap()[1].material.key.len(), 50);
        stretches.spend().unwrap();
        assert_eq!((stretches.offers().len(), open(folder.path()).offers().len()), (0, 0));
        assert!(!stretches.path(0).exists());
    }

    #[test]
    fn a_chain_ends_before_what_was_cut_changed_or_erased() {
        let spoil: [fn(&Path); 4] = [
            |path| std::fs::write(path, &std::fs::read(path).unwrap()[..40]).unwrap(),
            |path| std::fs::write(path, std::fs::read(path.with_file_name("0.stretch")).unwrap()).unwrap(),
            |path| std::fs::write(path, vec![0; std::fs::read(path).unwrap().len()]).unwrap(),
            |path| std::fs::remove_file(path).unwrap(),
        ];
        for spoil in spoil {
            let folder = tempfile::tempdir().unwrap();
            let mut stretches = open(folder.path());
            (1..=3).for_each(|rounds| stretches.keep(9, &stretch(rounds, 100, false)).unwrap());
            spoil(&stretches.path(1));
            std::fs::write(stretches.path(7), b"torn").unwrap();
            let stretches = open(folder.path());
            assert_eq!(stretches.rounds(), 1);
            assert_eq!(stretches.folder.names().unwrap(), ["0.stretch"]);
        }
    }

    #[test]
    fn nonsense_is_an_error_and_never_a_panic() {
        let about = About::of(1, &stretch(1, 100, true));
        let head = serde_json::to_vec(&about).unwrap();
        let whole = [&(head.len() as u64).to_le_bytes()[..], &head, &[0; 26]].concat();
        assert!(parse(&whole).is_ok());
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_err(), "cut at byte {cut}");
        }
        assert!(parse(&[u64::MAX.to_le_bytes().as_slice(), &head].concat()).is_err());
    }
}
