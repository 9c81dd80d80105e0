//! Click streams of an energy-time link for tests and benches: pairs with side peaks and jitter, uncorrelated
//! clicks, dead time, two clocks. Deliberately simpler than the physics of the simulator, and independent of it.

use std::collections::VecDeque;

/// Length of the slices in which clicks are drawn and in which the clocks' noise is linear.
const SLICE_PS: i64 = 2_000_000_000;
/// Clicks leave the buffer of a slice once nothing earlier can come.
const REORDER_PS: i64 = 100_000;

/// What the link is like. Rates are per second, `pair_rate` that of pairs of which both photons click, side
/// peaks included.
#[derive(Clone, Debug)]
pub struct Link {
    pub own_rate: f64,
    pub peer_rate: f64,
    pub pair_rate: f64,
    /// Standard deviation of the timing of one click.
    pub jitter_ps: f64,
    pub delay_ps: i64,
    pub dead_time_ps: i64,
    pub error_rate: f64,
    pub frame_ps: i64,
    pub first_frame: u64,
    /// Own minus peer's clock in the beginning, its rate of change, and noise of it.
    pub offset_ps: f64,
    pub frequency: f64,
    pub white_fm_ps_per_sqrt_s: f64,
    pub random_walk_fm: f64,
    pub seed: u64,
}

impl Link {
    /// The 50 km link: 33.5 dB.
    pub fn short(seed: u64) -> Self {
        Self {
            own_rate: 9.9e6,
            peer_rate: 4.6e6,
            pair_rate: 1.2e5,
            jitter_ps: 29.4,
            delay_ps: 400,
            dead_time_ps: 30_000,
            error_rate: 0.005,
            frame_ps: 20_000_000_000,
            first_frame: 1000,
            offset_ps: 0.0,
            frequency: 0.0,
            white_fm_ps_per_sqrt_s: 0.0,
            random_walk_fm: 0.0,
            seed,
        }
    }

    /// The 100 km link: 45 dB, a peak 207 ps wide.
    pub fn long(seed: u64) -> Self {
        Self { own_rate: 5.6e6, peer_rate: 1.8e5, pair_rate: 5.7e3, jitter_ps: 62.2, ..Self::short(seed) }
    }
}

/// xoshiro256++ (Blackman and Vigna), seeded by splitmix64.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        }))
    }

    pub fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// In (0, 1].
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -self.uniform().ln() * mean
    }
}

/// One end's clicks on the way from drawing to frames: local time in ps, and detector.
#[derive(Default)]
struct End {
    waiting: Vec<(i64, u8)>,
    ready: VecDeque<(i64, u8)>,
    dead_until: [i64; 4],
}

impl End {
    /// Everything before `end` is complete: sorts it and applies the dead time.
    fn settle(&mut self, end: i64, dead_time_ps: i64) {
        self.waiting.sort();
        let count = self.waiting.partition_point(|click| click.0 < end);
        for (time, detector) in self.waiting.drain(..count) {
            if time >= self.dead_until[usize::from(detector)] {
                self.dead_until[usize::from(detector)] = time + dead_time_ps;
                self.ready.push_back((time, detector));
            }
        }
    }

    fn cut(&mut self, end: i64) -> Vec<u64> {
        let count = self.ready.partition_point(|click| click.0 < end);
        self.ready.drain(..count).map(|(time, detector)| (time as u64 / 4) << 10 | 1 << detector).collect()
    }
}

/// Draws a link's clicks, frame by frame. True time is that of the own clock.
pub struct Streams {
    pub link: Link,
    random: Random,
    now: i64,
    frame: u64,
    /// Own minus peer's clock at `now`, and its rate.
    pub difference_ps: f64,
    frequency: f64,
    own: End,
    peer: End,
}

impl Streams {
    pub fn new(link: Link) -> Self {
        let begin = link.first_frame as i64 * link.frame_ps;
        Self {
            random: Random::new(link.seed),
            now: begin - 12_000_000_000,
            frame: link.first_frame,
            difference_ps: link.offset_ps,
            frequency: link.frequency,
            own: End::default(),
            peer: End::default(),
            link,
        }
    }

    /// Frame number, own tags, the peer's tags: both of the frame of that number in their own time.
    pub fn next_frame(&mut self) -> (u64, Vec<u64>, Vec<u64>) {
        let frame = self.frame;
        self.frame += 1;
        let begin = frame as i64 * self.link.frame_ps;
        let end = begin + self.link.frame_ps;
        while self.now.min(self.now - self.difference_ps as i64) < end + 2 * REORDER_PS {
            self.draw_slice();
        }
        // Clicks before the first frame are not part of any.
        self.own.cut(begin);
        self.peer.cut(begin);
        (frame, self.own.cut(end), self.peer.cut(end))
    }

    /// Lets the clocks jump apart.
    pub fn jump(&mut self, ps: f64) {
        self.difference_ps += ps;
    }

    fn draw_slice(&mut self) {
        let seconds = SLICE_PS as f64 * 1e-12;
        self.frequency += self.link.random_walk_fm * 1e-12 * seconds.sqrt() * self.random.normal();
        let wander = self.link.white_fm_ps_per_sqrt_s * seconds.sqrt() * self.random.normal();
        let slope = self.frequency + wander / SLICE_PS as f64;
        let (begin, difference) = (self.now, self.difference_ps);
        let to_peer = |time: f64| begin + nearest(time - difference - slope * time);
        let link = self.link.clone();
        let length = SLICE_PS as f64;
        let mut time = self.random.exponential(1e12 / link.own_rate);
        while time < length {
            self.own.waiting.push((begin + time as i64, (self.random.next() >> 62) as u8));
            time += self.random.exponential(1e12 / link.own_rate);
        }
        time = self.random.exponential(1e12 / link.peer_rate);
        while time < length {
            self.peer.waiting.push((to_peer(time), (self.random.next() >> 62) as u8));
            time += self.random.exponential(1e12 / link.peer_rate);
        }
        time = self.random.exponential(1e12 / link.pair_rate);
        while time < length {
            self.draw_pair(begin, time, &link, &to_peer);
            time += self.random.exponential(1e12 / link.pair_rate);
        }
        self.now += SLICE_PS;
        self.difference_ps += slope * length;
        let horizon = self.now - REORDER_PS;
        self.own.settle(horizon, link.dead_time_ps);
        self.peer.settle(horizon - self.difference_ps as i64, link.dead_time_ps);
    }

    /// Short and long arm at both ends in all combinations; equal arms are the central peak, and there bits agree.
    fn draw_pair(&mut self, begin: i64, time: f64, link: &Link, to_peer: &impl Fn(f64) -> i64) {
        let draw = self.random.next();
        let bit = |i: u32| (draw >> i & 1) as u8;
        let (own_arm, peer_arm, own_x, peer_x) = (bit(0), bit(1), bit(2), bit(3));
        let flip = u8::from(self.random.uniform() < link.error_rate);
        let own_port = if own_x == 1 { bit(4) } else { own_arm };
        let interferes = own_x == 1 && peer_x == 1 && own_arm == peer_arm;
        let peer_port = match (peer_x, interferes) {
            (0, _) => peer_arm,
            (_, true) => own_port,
            _ => bit(5),
        };
        let arm = |arm: u8| (i64::from(arm) * link.delay_ps) as f64;
        let own_time = time + arm(own_arm) + link.jitter_ps * self.random.normal();
        let peer_time = time + arm(peer_arm) + link.jitter_ps * self.random.normal();
        self.own.waiting.push((begin + nearest(own_time), 2 * own_x + own_port));
        self.peer.waiting.push((to_peer(peer_time), 2 * peer_x + (peer_port ^ flip)));
    }
}

fn nearest(value: f64) -> i64 {
    (value + 0.5).floor() as i64
}
