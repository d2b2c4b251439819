//! What "near" means.

/// How the distance of two vectors is measured; smaller is nearer.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Metric {
    /// `1 - cos(a, b)`, 0 to 2. The length of a vector plays no part.
    #[default]
    Cosine,
    /// `1 - a . b`: the inner product, largest first. Any number, also below zero.
    Dot,
    /// The Euclidean distance, from 0. Searched by its square, which orders alike.
    L2,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 3] = [Self::Cosine, Self::Dot, Self::L2];

    /// The name used in the API and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::L2 => "l2",
        }
    }

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// The distance as people mean it, of one that a [`crate::Scorer`] gave.
    pub fn reported(self, scored: f32) -> f32 {
        match self {
            Self::Cosine | Self::Dot => scored,
            Self::L2 => scored.sqrt(),
        }
    }

    /// What a [`crate::Scorer`] gives for the distance `reported`: the other way round.
    pub fn scored(self, reported: f32) -> f32 {
        match self {
            Self::Cosine | Self::Dot => reported,
            Self::L2 => reported * reported,
        }
    }
}
