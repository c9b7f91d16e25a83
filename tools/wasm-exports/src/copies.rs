//! Copies of few bytes, without the VM's help.
//!
//! rustc writes each copy of a length that it does not know as `memory.copy`. V8 calls out of its machine code for one, some
//! 13 ns, and most of the filter's copies are of a header's name or less. So they call a function of the module instead, which
//! copies up to [`MOST`] bytes by itself, in 2 to 4 ns, and leaves longer ones to `memory.copy`.

use wasm_encoder::{
    BlockType, CodeSection, Function, FunctionSection, Instruction, MemArg, MemArgTarget,
    TypeSection, ValType,
};

/// The most bytes that the function copies by itself.
const MOST: i32 = 64;

/// The words that it loads for as many.
const WORDS: u32 = 8;

/// The parameters of the function, as of `memory.copy`.
const TO: u32 = 0;
const FROM: u32 = 1;
const LENGTH: u32 = 2;

/// The bytes that one load takes, the widest first.
const WIDTHS: [u32; 4] = [8, 4, 2, 1];

/// Adds the type of the function. Returns its index.
pub fn add_type(types: &mut TypeSection) -> u32 {
    let index = types.len();
    types.ty().function([ValType::I32; 3], []);
    index
}

/// Adds the function, of this type, behind all others.
pub fn add_function(functions: &mut FunctionSection, of_type: u32) {
    functions.function(of_type);
}

/// Adds the code of the function.
pub fn add_code(code: &mut CodeSection) {
    // Everything is loaded before anything is stored, as what is copied may overlap.
    let mut function = Function::new([(WORDS, ValType::I64), (2, ValType::I32)]);
    longer_than(&mut function, MOST);
    for operand in [TO, FROM, LENGTH] {
        function.instruction(&Instruction::LocalGet(operand));
    }
    function.instruction(&Instruction::MemoryCopy {
        src_mem: 0,
        dst_mem: 0,
    });
    end(&mut function);
    longer_than(&mut function, MOST / 2);
    by_both_ends(&mut function, 8, 4);
    end(&mut function);
    longer_than(&mut function, MOST / 4);
    by_both_ends(&mut function, 8, 2);
    end(&mut function);
    for width in WIDTHS {
        longer_than(&mut function, i32::try_from(width).unwrap_or(MOST) - 1);
        by_both_ends(&mut function, width, 1);
        end(&mut function);
    }
    function.instruction(&Instruction::End);
    code.function(&function);
}

/// Begins what is done if there are more than `bytes` to copy.
fn longer_than(function: &mut Function, bytes: i32) {
    function.instruction(&Instruction::LocalGet(LENGTH));
    function.instruction(&Instruction::I32Const(bytes));
    function.instruction(&Instruction::I32GtU);
    function.instruction(&Instruction::If(BlockType::Empty));
}

/// Ends it, and the function with it.
fn end(function: &mut Function) {
    function.instruction(&Instruction::Return);
    function.instruction(&Instruction::End);
}

/// Copies `count` pieces of `width` bytes from the beginning, and as many up to the end, which may overlap them.
fn by_both_ends(function: &mut Function, width: u32, count: u32) {
    let first_local = LENGTH + 1 + if width == 8 { 0 } else { WORDS };
    let pieces = |base: u32| {
        let begin = (0..count).map(move |piece| (false, piece * width, first_local + piece));
        let end = (0..count).map(move |piece| {
            let local = first_local + count + piece;
            (true, piece * width, local)
        });
        begin.chain(end).map(move |piece| (base, piece))
    };
    // Where the last `count` pieces begin, less what an offset adds.
    let address = |function: &mut Function, base: u32, from_end: bool| {
        function.instruction(&Instruction::LocalGet(base));
        if from_end {
            function.instruction(&Instruction::LocalGet(LENGTH));
            function.instruction(&Instruction::I32Add);
            let back = i32::try_from(width * count).unwrap_or(MOST);
            function.instruction(&Instruction::I32Const(back));
            function.instruction(&Instruction::I32Sub);
        }
    };
    for (base, (from_end, offset, local)) in pieces(FROM) {
        address(function, base, from_end);
        function.instruction(&load(width, offset));
        function.instruction(&Instruction::LocalSet(local));
    }
    for (base, (from_end, offset, local)) in pieces(TO) {
        address(function, base, from_end);
        function.instruction(&Instruction::LocalGet(local));
        function.instruction(&store(width, offset));
    }
}

fn at(offset: u32) -> MemArg {
    MemArg {
        offset: offset.into(),
        align: 0,
        target: MemArgTarget::Memory(0),
        ordering: None,
    }
}

fn load(width: u32, offset: u32) -> Instruction<'static> {
    match width {
        8 => Instruction::I64Load(at(offset)),
        4 => Instruction::I32Load(at(offset)),
        2 => Instruction::I32Load16U(at(offset)),
        _ => Instruction::I32Load8U(at(offset)),
    }
}

fn store(width: u32, offset: u32) -> Instruction<'static> {
    match width {
        8 => Instruction::I64Store(at(offset)),
        4 => Instruction::I32Store(at(offset)),
        2 => Instruction::I32Store16(at(offset)),
        _ => Instruction::I32Store8(at(offset)),
    }
}

#[cfg(test)]
mod tests {
    use wasmparser::{CodeSectionReader, Operator};

    use super::*;

    const MEMORY_BYTES: usize = 512;

    /// The function's code, as it is read again.
    fn with_code(use_it: impl FnOnce(&[Operator<'_>])) {
        let mut section = CodeSection::new();
        add_code(&mut section);
        let mut bytes = Vec::new();
        wasm_encoder::Encode::encode(&section, &mut bytes);
        // The length of the section stands before what the reader reads.
        let length = bytes.iter().take_while(|byte| **byte >= 0x80).count() + 1;
        let bytes = wasmparser::BinaryReader::new(&bytes[length..], 0);
        let bodies = CodeSectionReader::new(bytes).unwrap();
        let body = bodies.into_iter().next().unwrap().unwrap();
        let operators = body.get_operators_reader().unwrap().into_iter();
        use_it(&operators.map(Result::unwrap).collect::<Vec<_>>());
    }

    /// Runs the code on these parameters: a machine for what is in it, and nothing else.
    fn run(code: &[Operator<'_>], parameters: [u32; 3], memory: &mut [u8]) {
        let mut locals = parameters.map(u64::from).to_vec();
        locals.resize(parameters.len() + WORDS as usize + 2, 0);
        let mut stack: Vec<u64> = Vec::new();
        let mut skips = false;
        for operator in code {
            let mut pop = || stack.pop().unwrap();
            let at = |address: u64, memarg: &wasmparser::MemArg| {
                usize::try_from(address + memarg.offset).unwrap()
            };
            match operator {
                Operator::End => skips = false,
                _ if skips => {}
                Operator::If { .. } => skips = pop() == 0,
                Operator::Return => return,
                Operator::LocalGet { local_index } => stack.push(locals[*local_index as usize]),
                Operator::LocalSet { local_index } => locals[*local_index as usize] = pop(),
                Operator::I32Const { value } => stack.push(u64::from(value.cast_unsigned())),
                Operator::I32GtU => {
                    let (right, left) = (pop(), pop());
                    stack.push(u64::from(left > right));
                }
                Operator::I32Add => {
                    let (right, left) = (pop(), pop());
                    stack.push((left + right) & u64::from(u32::MAX));
                }
                Operator::I32Sub => {
                    let (right, left) = (pop(), pop());
                    stack.push(left.checked_sub(right).expect("an address in memory"));
                }
                Operator::I64Load { memarg }
                | Operator::I32Load { memarg }
                | Operator::I32Load16U { memarg }
                | Operator::I32Load8U { memarg } => {
                    let from = at(pop(), memarg);
                    let mut word = [0; 8];
                    let width = width_of(operator);
                    word[..width].copy_from_slice(&memory[from..from + width]);
                    stack.push(u64::from_le_bytes(word));
                }
                Operator::I64Store { memarg }
                | Operator::I32Store { memarg }
                | Operator::I32Store16 { memarg }
                | Operator::I32Store8 { memarg } => {
                    let word = pop().to_le_bytes();
                    let to = at(pop(), memarg);
                    let width = width_of(operator);
                    memory[to..to + width].copy_from_slice(&word[..width]);
                }
                Operator::MemoryCopy { .. } => {
                    let (length, from, to) = (pop(), pop(), pop());
                    let [length, from, to] =
                        [length, from, to].map(|value| usize::try_from(value).unwrap());
                    memory.copy_within(from..from + length, to);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(stack.is_empty(), "{stack:?}");
    }

    fn width_of(operator: &Operator<'_>) -> usize {
        match operator {
            Operator::I64Load { .. } | Operator::I64Store { .. } => 8,
            Operator::I32Load { .. } | Operator::I32Store { .. } => 4,
            Operator::I32Load16U { .. } | Operator::I32Store16 { .. } => 2,
            _ => 1,
        }
    }

    #[test]
    fn every_length_is_copied_as_memory_copy_does_also_where_it_overlaps() {
        let full: Vec<u8> = (0..MEMORY_BYTES).map(|at| (at % 251) as u8).collect();
        with_code(|code| {
            for length in 0..=100_u32 {
                for distance in -110..=110_i32 {
                    let from = 200_u32;
                    let to = from.checked_add_signed(distance).unwrap();
                    let (mut ours, mut expected) = (full.clone(), full.clone());
                    run(code, [to, from, length], &mut ours);
                    let (from, to) = (from as usize, to as usize);
                    expected.copy_within(from..from + length as usize, to);
                    assert_eq!(ours, expected, "{length} bytes by {distance}");
                }
            }
            // Nothing before the beginning of memory is touched.
            for length in 0..=64_u32 {
                let (mut ours, mut expected) = (full.clone(), full.clone());
                run(code, [0, 1, length], &mut ours);
                expected.copy_within(1..1 + length as usize, 0);
                assert_eq!(ours, expected, "{length} bytes at the beginning");
            }
        });
    }
}
