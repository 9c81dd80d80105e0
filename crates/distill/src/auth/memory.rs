//! A reserve in memory, for tests and for links whose reserve need not survive.

use super::reserve::{Cell, Cells, Layout, Mark, Offsets, Reserve, ReserveError};
use super::{Direction, MaskKey, Side};
use crate::bits::Bits;

pub struct MemoryReserve {
    side: Side,
    layout: Layout,
    cells: Cells,
    offsets: Offsets,
    mask_key: Option<MaskKey>,
    rolled_back: bool,
    generation: u64,
}

impl MemoryReserve {
    /// Of the older form, whose cells are not masked.
    pub fn new(side: Side, layout: Layout, secret: &Bits) -> Result<Self, ReserveError> {
        Ok(Self {
            side,
            layout,
            cells: Cells::new(secret)?,
            offsets: Offsets::default(),
            mask_key: None,
            rolled_back: false,
            generation: 0,
        })
    }

    /// The same with a key for masks.
    pub fn with_mask_key(self, key: MaskKey) -> Self {
        Self { mask_key: Some(key), ..self }
    }

    /// Replaces the reserve by a fresh secret.
    pub fn rekey(&mut self, secret: &Bits) -> Result<(), ReserveError> {
        self.cells = Cells::new(secret)?;
        self.offsets = Offsets::default();
        self.rolled_back = false;
        self.generation += 1;
        Ok(())
    }

    fn tags(&self) -> u64 {
        self.layout.tags_in(self.cells.bits())
    }
}

impl Reserve for MemoryReserve {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn next_send(&self) -> u64 {
        self.offsets.send
    }

    fn next_receive(&self) -> u64 {
        self.offsets.receive
    }

    fn remaining_send(&self) -> u64 {
        self.tags().saturating_sub(self.offsets.send)
    }

    fn remaining_receive(&self) -> u64 {
        self.tags().saturating_sub(self.offsets.receive)
    }

    fn mask_key(&self) -> Option<&MaskKey> {
        self.mask_key.as_ref()
    }

    fn hash_key(&self, direction: Direction, tag: u64) -> Result<Cell, ReserveError> {
        self.cells.cell(direction, self.layout.hash_cell(tag))
    }

    fn take_send(&mut self, tag: u64) -> Result<Cell, ReserveError> {
        if tag < self.offsets.send {
            return Err(ReserveError::Used(tag));
        }
        let cell = self.cells.cell(self.side.direction(), self.layout.pad_cell(tag))?;
        self.offsets.send = tag + 1;
        Ok(cell)
    }

    fn pad_to_verify(&self, tag: u64) -> Result<Cell, ReserveError> {
        if tag < self.offsets.receive {
            return Err(ReserveError::Used(tag));
        }
        self.cells.cell(self.side.other().direction(), self.layout.pad_cell(tag))
    }

    fn verified(&mut self, tag: u64) -> Result<(), ReserveError> {
        if tag < self.offsets.receive {
            return Err(ReserveError::Used(tag));
        }
        self.offsets.receive = tag + 1;
        Ok(())
    }

    fn is_rolled_back(&self) -> bool {
        self.rolled_back
    }

    fn roll_back(&mut self, _: &str) -> Result<(), ReserveError> {
        self.rolled_back = true;
        Ok(())
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn marks(&self) -> Vec<Mark> {
        self.cells.marks().to_vec()
    }

    fn append(&mut self, block: u64, bits: &Bits) -> Result<(), ReserveError> {
        self.cells.append(block, bits).map(|_| ())
    }

    fn align(&mut self, peer: &[Mark]) -> Result<(), ReserveError> {
        let bits = self.cells.aligned_bits(peer, self.offsets.used_bits(self.layout))?;
        if bits < self.cells.bits() {
            self.cells.truncate(bits);
        }
        Ok(())
    }
}
