//! Files of sessions: what is written is read, and what is not one is refused with its place.

use zeroize::Zeroizing;

use crate::config::{Encoding, Intensity, Light, PhaseDrift, Transmitter};
use crate::tagfile::sessions::*;

const HEAD: Head = Head { kind: Kind::Choices, frame_ps: 20_000_000_000, transmitter: 77 };

fn sessions() -> Vec<Session> {
    let session = |number: u64, frames| Session { number, first: 10 * number, frames, key: Zeroizing::new([7; 32]) };
    vec![session(3, Some(200)), session(9, None)]
}

fn file() -> Vec<u8> {
    let mut bytes = head(&HEAD).to_vec();
    sessions().iter().for_each(|one| bytes.extend_from_slice(&session(one)[..]));
    bytes
}

fn refused(bytes: &[u8]) -> String {
    read(bytes, &HEAD).unwrap_err().to_string()
}

#[test]
fn what_was_written_is_read() {
    assert_eq!(read(&file()[..], &HEAD).unwrap(), sessions());
    let shown = format!("{:?}", sessions());
    assert!(shown.contains("Session(") && !shown.contains("7, 7"), "{shown}");
}

#[test]
fn what_is_no_such_file_is_refused_with_its_place() {
    let good = file();
    let but = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        refused(&bytes)
    };
    assert_eq!(refused(&[]), "byte 0: this is not a file of a transmitter's choices");
    assert_eq!(refused(b"qkdnot a file"), "byte 4: this is not a file of a transmitter's choices");
    assert_eq!(but(7), "byte 7: this is not a file of a transmitter's choices");
    assert_eq!(refused(&good[..20]), "byte 20: this is not a file of a transmitter's choices");
    assert_eq!(but(8), "byte 8: it has frames of 20000000001 ps, the topology those of 20000000000 ps");
    assert_eq!(but(16), "byte 16: it is of another transmitter than the topology's");
    assert_eq!(refused(&good[..HEAD_BYTES]), "byte 24: there is no session in it");
    for at in HEAD_BYTES..HEAD_BYTES + SESSION_BYTES {
        assert_eq!(but(at), "byte 24: the session that begins here is damaged");
    }
    assert_eq!(but(HEAD_BYTES + SESSION_BYTES), "byte 88: the session that begins here is damaged");
    assert_eq!(refused(&good[..good.len() - 1]), "byte 88: the file ends 63 bytes into a session of 64");
    let long = [&head(&HEAD)[..], &good[HEAD_BYTES..HEAD_BYTES + SESSION_BYTES].repeat(SESSIONS_MAX + 1)].concat();
    assert_eq!(refused(&long), "byte 262168: more than 4096 sessions");
}

#[test]
fn transmitters_that_choose_otherwise_are_told_apart() {
    let transmitter = |mean_photons: f64, z_probability: f64, preamble_pulses: u64| Transmitter {
        repetition_rate_hz: 1e9,
        encoding: Encoding::Polarisation,
        light: Light::Coherent(vec![Intensity { mean_photons, probability: 1.0 }]),
        z_probability,
        intrinsic_error: [0.0; 2],
        pulse_fwhm_ps: 0.0,
        bin_separation_ps: 0.0,
        phase: PhaseDrift::default(),
        preamble_pulses,
        steps: vec![],
    };
    let one = transmitter(0.5, 0.9, 10);
    assert_eq!(fingerprint(&one), fingerprint(&one.clone()));
    for other in [transmitter(0.4, 0.9, 10), transmitter(0.5, 0.8, 10), transmitter(0.5, 0.9, 11)] {
        assert_ne!(fingerprint(&one), fingerprint(&other));
    }
}
