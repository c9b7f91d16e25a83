//! x
#[test]fn t(){}
