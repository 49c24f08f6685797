//! What runs say together: figures over seeds, policies side by side, and the acceptance
//! table. It reads reports and runs nothing.

pub mod acceptance;
mod comparison;
mod complexity;
mod interval;
mod metric;

pub use comparison::{Cell, PolicyRuns};
pub use complexity::{Complexity, complexity};
pub use interval::Interval;
pub use metric::Metric;
