//! `vectors/dynamic_size.json`: 84 sizes, with bounds, including empty ranges.

use byteleap_compute::size;
use byteleap_protocol::id::Seed;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    kind: String,
    seed: Seed,
    base_size: u32,
    variance: f64,
    min_size: u32,
    max_size: u32,
    size: u32,
}

#[test]
fn sizes_are_drawn_as_published() {
    let vectors: Vectors = serde_json::from_str(include_str!("../vectors/dynamic_size.json")).unwrap();
    assert_eq!(vectors.cases.len(), 84);
    for case in vectors.cases {
        let size = match case.kind.as_str() {
            "cpu" => size::cpu_size(&case.seed, case.base_size, case.variance),
            "gpu" => size::gpu_size(&case.seed, case.base_size, case.variance),
            kind => panic!("unknown kind {kind}"),
        };
        assert_eq!(size, case.size, "{} {} ± {} for seed {}", case.kind, case.base_size, case.variance, case.seed);
        assert!((case.min_size..=case.max_size).contains(&size));
    }
}

#[test]
fn a_base_outside_the_bounds_is_taken_as_it_is() {
    let seed: Seed = "07".parse().unwrap();
    assert_eq!(size::cpu_size(&seed, 50, 0.1), 50);
    assert_eq!(size::cpu_size(&seed, 20_000, 0.1), 20_000);
}
