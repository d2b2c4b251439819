//! Numbers that are random enough and the same in every run.

/// A generator (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Seeded(u64);

impl Seeded {
    /// A generator whose sequence follows from `seed`.
    pub(crate) fn new(seed: u64) -> Seeded {
        Seeded(seed)
    }

    /// The next 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.bits() % end as u64).expect("below a usize")
    }

    /// A number from -1 to 1, with as many digits as an f32 has.
    pub(crate) fn number(&mut self) -> f32 {
        let bits = u32::try_from(self.bits() >> 40).expect("24 bits");
        #[expect(clippy::cast_precision_loss, reason = "24 bits fit an f32")]
        let number = bits as f32 / 8_388_608.0 - 1.0;
        number
    }

    /// A vector that is not zero.
    pub(crate) fn vector(&mut self, dimension: usize) -> Vec<f32> {
        let mut vector: Vec<f32> = (0..dimension).map(|_| self.number()).collect();
        vector[0] += 2.0;
        vector
    }
}
