//! How much a device may delete or rewrite in a folder before a person is asked.

/// When a change set counts as a large one. A value of several grades, for a quarter of a small folder is
/// an ordinary day and a quarter of a large one is not.
///
/// Invariant: there is at least one grade, and the last holds back more than [`FILES_MAX`] files whatever
/// their share, so that nobody's numbers turn the brake off unseen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Thresholds {
    grades: Vec<Grade>,
}

/// A change set is held if it touches more files than this, and more than this share of all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Grade {
    /// Files.
    pub files: u64,
    /// Hundredths of the files of the folder; 0 to 100.
    pub percent: u8,
}

/// Most files that are ever deleted or rewritten without a person being asked, while the brake is on.
pub const FILES_MAX: u64 = 50_000;

const LAST: Grade = Grade { files: FILES_MAX, percent: 0 };

impl Thresholds {
    /// Holds what exceeds one grade, or [`FILES_MAX`] files.
    pub fn new(grade: Grade) -> Self {
        Self { grades: vec![grade, LAST] }
    }

    /// Returns the first grade, the one that a person chooses.
    pub fn first(&self) -> Grade {
        self.grades.first().copied().unwrap_or(LAST)
    }

    /// Returns how many of `all` files may be touched within the window.
    pub fn limit(&self, all: u64) -> u64 {
        let of = |grade: &Grade| grade.files.max(share(all, grade.percent));
        self.grades.iter().map(of).min().unwrap_or(0)
    }
}

/// More than 100 files and more than a quarter; or more than 5,000 and more than a tenth; or 50,000.
impl Default for Thresholds {
    fn default() -> Self {
        Self { grades: vec![Grade { files: 100, percent: 25 }, Grade { files: 5_000, percent: 10 }, LAST] }
    }
}

fn share(all: u64, percent: u8) -> u64 {
    u64::try_from(u128::from(all) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_folder_has_a_number_a_larger_one_a_share_and_a_huge_one_a_bound() {
        let usual = Thresholds::default();
        let limits = [0, 50, 400, 1000, 20_000, 50_000, 100_000, 499_999, 600_000, 10_000_000];
        assert_eq!(
            limits.map(|all| usual.limit(all)),
            [100, 100, 100, 250, 5000, 5000, 10_000, 49_999, 50_000, 50_000]
        );
    }

    #[test]
    fn whoever_asks_for_more_gets_it_up_to_the_bound() {
        let own = Thresholds::new(Grade { files: 8_000, percent: 50 });
        assert_eq!([100, 20_000, 90_000, 1_000_000].map(|all| own.limit(all)), [8_000, 10_000, 45_000, FILES_MAX]);
        let all_of_it = Thresholds::new(Grade { files: u64::MAX, percent: 100 });
        assert_eq!(all_of_it.limit(u64::MAX), FILES_MAX);
    }

    proptest! {
        #[test]
        fn a_larger_folder_never_has_a_smaller_limit(all: u64, more: u64, files: u64, percent in 0u8..=100) {
            for thresholds in [Thresholds::default(), Thresholds::new(Grade { files, percent })] {
                prop_assert!(thresholds.limit(all) <= thresholds.limit(all.saturating_add(more)));
            }
        }
    }
}
