use photonics::nature::counts::{HALF_BYTES_MAX, Labelled as Drawn};

use super::*;

fn string(len: usize, word: u64, planes: usize) -> Drawn {
    let words = |word: u64| {
        let mut words = vec![word; len.div_ceil(64)];
        if let (Some(last), 1..) = (words.last_mut(), len % 64) {
            *last &= (1 << (len % 64)) - 1;
        }
        words
    };
    Drawn { len, bits: words(word), kinds: (0..planes).map(|plane| words(word >> (plane + 1))).collect() }
}

fn half(slice: u32, slices: u32) -> Half {
    Half {
        epoch: 9,
        slice,
        slices,
        pulses: 1000,
        clicks: 500,
        mismatched: 7,
        crossed: 5,
        doubles: 3,
        key: string(100 + slice as usize, 0x9876_5432_10fe_dcba, 2),
        check: string(30, 0x0123, 2),
    }
}

fn epoch(counts: Vec<Vec<u8>>) -> PhotonEpoch {
    let counts = counts.into_iter().map(Into::into).collect();
    PhotonEpoch { epoch: 9, counts, traceparent: "trace".to_owned(), ..PhotonEpoch::default() }
}

#[test]
fn the_slices_of_an_epoch_become_one_frame_in_their_order() {
    let halves = [half(0, 3), half(1, 3), half(2, 3)];
    let light = epoch(halves.iter().map(Half::encode).collect());
    let mut frames = Counting::new(None).take(light).expect("a frame");
    let FrameInput { number, light, traceparent } = frames.remove(0);
    let Light::Counts(frame) = light else { panic!("no counts") };
    assert_eq!((number, traceparent.as_str(), frames.len()), (9, "trace", 0));
    assert_eq!((frame.key.bits.len(), frame.check.bits.len(), frame.key.kinds.len()), (303, 90, 2));
    let mut place = 0;
    for half in &halves {
        for own in 0..half.key.len {
            let kind = usize::from(frame.key.kinds[0].get(place)) + 2 * usize::from(frame.key.kinds[1].get(place));
            assert_eq!((frame.key.bits.get(place), kind), (half.key.bit(own), half.key.kind(own)));
            place += 1;
        }
    }
    let counted = (frame.pulses, frame.clicks, frame.mismatched, frame.crossed, frame.merged);
    assert_eq!(counted, (3000, 1500, 21, 15, 24), "an event in both bases is two clicks");
}

#[test]
fn counts_that_are_not_those_of_their_epoch_end_the_session() {
    let whole = || vec![half(0, 2).encode(), half(1, 2).encode()];
    let refused = |counts: Vec<Vec<u8>>| {
        let error = Counting::new(None).take(epoch(counts)).err().expect("an error");
        shell::chain(&error).to_string()
    };
    let mut other_kinds = half(1, 2);
    other_kinds.key.kinds.clear();
    other_kinds.check.kinds.clear();
    for (counts, why) in [
        (vec![], "0 slices"),
        (vec![half(0, 1).encode(); SLICES_MAX as usize + 1], "17 slices"),
        (vec![half(0, 2).encode()], "slice 0 of 2"),
        (whole().into_iter().rev().collect(), "slice 1 of 2"),
        (vec![Half { epoch: 8, ..half(0, 1) }.encode()], "of epoch 8"),
        (vec![half(0, 2).encode(), other_kinds.encode()], "different numbers of intensities"),
        (vec![vec![0; 88]], "do not begin with"),
        (vec![vec![0; HALF_BYTES_MAX + 1]], "do not begin with"),
    ] {
        let said = refused(counts);
        assert!(said.contains(why) && said.contains("epoch 9"), "{said}");
    }
    let photons = PhotonEpoch { photons: vec![1].into(), ..epoch(whole()) };
    assert!(Counting::new(None).take(photons).is_err());
}
