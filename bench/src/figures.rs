//! Medians, numbers that are the same every time, and how busy the machine is.

/// The middle one; not a number for none.
pub fn median(values: &[f64]) -> f64 {
    at(values, 0.5)
}

/// The value at a place of the order: 0 is the least, 1 the greatest. Not a number for none.
pub fn at(values: &[f64], place: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1) as f64;
    let near = |index: &usize| *index as f64 >= (place * last).round();
    let index = (0..sorted.len()).find(near).unwrap_or(0);
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// The load averages of the last 1, 5 and 15 minutes, as Linux writes them.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// The same numbers every time.
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// The next number of `-1..1`.
    pub fn number(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    /// The next unit vector of `dimension` numbers.
    pub fn unit(&mut self, dimension: usize) -> Vec<f32> {
        let raw: Vec<f32> = (0..dimension).map(|_number| self.number()).collect();
        let norm = raw.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        raw.into_iter().map(|x| x / norm).collect()
    }
}
