//! Drops the exports of a wasm module that are not on a keep-list, has it copy few bytes [by itself](copies), and leaves
//! everything else as it is; refuses a module that imports what is not on a second list.
//!
//! It does not remove the code that the dropped exports alone could reach: the optimiser that
//! runs afterwards does.
//!
//! Usage: `wasm-exports KEEP_LIST IMPORT_LIST INPUT OUTPUT`. A list has one name a line; `#` starts a
//! comment. A name that the module does not export is an error, so that a typing mistake cannot
//! silence a callback.

mod copies;

use std::collections::BTreeSet;
use std::error::Error;
use std::{env, fs};

use wasm_encoder::reencode::{Error as ReencodeError, Reencode, utils};
use wasm_encoder::{
    CodeSection, ExportSection, FunctionSection, ImportSection, Instruction, Module, TypeSection,
};
use wasmparser::{
    CodeSectionReader, ExportSectionReader, FunctionSectionReader, ImportSectionReader, Operator,
    Parser, Payload, TypeRef, TypeSectionReader,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [keep_list, import_list, input, output] = arguments.as_slice() else {
        return Err("usage: wasm-exports KEEP_LIST IMPORT_LIST INPUT OUTPUT".into());
    };
    let keep_list = fs::read_to_string(keep_list)?;
    let import_list = fs::read_to_string(import_list)?;
    let module = fs::read(input)?;
    check_imports(&module, &names(&import_list))?;
    fs::write(output, keep_exports(&module, names(&keep_list))?)?;
    Ok(())
}

/// The names in the text of a keep-list.
fn names(keep_list: &str) -> BTreeSet<&str> {
    keep_list
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|name| !name.is_empty())
        .collect()
}

/// `module` with those of its exports alone that are in `keep`.
///
/// # Errors
/// When `module` is not wasm, or does not export one of the names in `keep`.
fn keep_exports(module: &[u8], keep: BTreeSet<&str>) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut filter = Rewrite {
        missing: keep.clone(),
        keep,
        functions: 0,
        copy_type: 0,
    };
    let mut kept = Module::new();
    filter.parse_core_module(&mut kept, Parser::new(0), module)?;
    if filter.missing.is_empty() {
        Ok(kept.finish())
    } else {
        Err(format!(
            "on the keep-list but not exported by the module: {:?}",
            filter.missing
        )
        .into())
    }
}

/// Holds what `module` imports to the names in `listed`.
///
/// # Errors
/// When `module` is not wasm, or imports something else.
fn check_imports(module: &[u8], listed: &BTreeSet<&str>) -> Result<(), Box<dyn Error>> {
    let mut others = BTreeSet::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ImportSection(section) = payload? {
            for import in section.into_imports() {
                let name = import?.name;
                if !listed.contains(name) {
                    others.insert(name);
                }
            }
        }
    }
    if others.is_empty() {
        Ok(())
    } else {
        Err(format!("imported by the module but not on the import list: {others:?}").into())
    }
}

struct Rewrite<'a> {
    keep: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    /// The functions of the module so far, imported ones first: the index of the next one.
    functions: u32,
    /// The type of the function that copies.
    copy_type: u32,
}

impl Reencode for Rewrite<'_> {
    type Error = std::convert::Infallible;

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: TypeSectionReader<'_>,
    ) -> Result<(), ReencodeError<Self::Error>> {
        utils::parse_type_section(self, types, section)?;
        self.copy_type = copies::add_type(types);
        Ok(())
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: ImportSectionReader<'_>,
    ) -> Result<(), ReencodeError<Self::Error>> {
        for import in section.clone().into_imports() {
            self.functions += u32::from(matches!(import?.ty, TypeRef::Func(_)));
        }
        utils::parse_import_section(self, imports, section)
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), ReencodeError<Self::Error>> {
        self.functions += section.count();
        utils::parse_function_section(self, functions, section)?;
        copies::add_function(functions, self.copy_type);
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<(), ReencodeError<Self::Error>> {
        utils::parse_code_section(self, code, section)?;
        copies::add_code(code);
        Ok(())
    }

    fn instruction<'a>(
        &mut self,
        operator: Operator<'a>,
    ) -> Result<Instruction<'a>, ReencodeError<Self::Error>> {
        match operator {
            Operator::MemoryCopy { .. } => Ok(Instruction::Call(self.functions)),
            other => utils::instruction(self, other),
        }
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: ExportSectionReader<'_>,
    ) -> Result<(), ReencodeError<Self::Error>> {
        for export in section {
            let export = export?;
            if self.keep.contains(export.name) {
                self.missing.remove(export.name);
                self.parse_export(exports, export)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{EntityType, ExportKind, Function, MemorySection, MemoryType};

    use super::*;

    /// A module with one memory, exported under each of `names`.
    fn module(names: &[&str]) -> Vec<u8> {
        let mut memories = MemorySection::new();
        memories.memory(MemoryType {
            minimum: 1,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        let mut exports = ExportSection::new();
        for name in names {
            exports.export(name, ExportKind::Memory, 0);
        }
        let mut module = Module::new();
        module.section(&memories).section(&exports);
        module.finish()
    }

    fn exports(module: &[u8]) -> Vec<String> {
        Parser::new(0)
            .parse_all(module)
            .filter_map(|payload| match payload.unwrap() {
                Payload::ExportSection(section) => Some(section),
                _ => None,
            })
            .flatten()
            .map(|export| export.unwrap().name.to_owned())
            .collect()
    }

    #[test]
    fn only_the_listed_exports_stay() {
        let kept = keep_exports(
            &module(&["memory", "proxy_on_log"]),
            names("memory # all\n"),
        )
        .unwrap();
        assert_eq!(exports(&kept), ["memory"]);
    }

    /// A module whose only function, beside an imported one, copies.
    fn copying() -> Vec<u8> {
        let (mut types, mut imports) = (TypeSection::new(), ImportSection::new());
        types.ty().function([], []);
        imports.import("env", "proxy_log", EntityType::Function(0));
        let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
        functions.function(0);
        let mut function = Function::new([]);
        for _ in 0..3 {
            function.instruction(&Instruction::I32Const(7));
        }
        let (src_mem, dst_mem) = (0, 0);
        function.instruction(&Instruction::MemoryCopy { src_mem, dst_mem });
        function.instruction(&Instruction::End);
        code.function(&function);
        let mut module = Module::new();
        module.section(&types).section(&imports);
        module.section(&functions).section(&code);
        module.finish()
    }

    #[test]
    fn copies_go_to_a_function_behind_all_others() {
        let module = keep_exports(&copying(), names("")).unwrap();
        let bodies: Vec<Vec<Operator<'_>>> = Parser::new(0)
            .parse_all(&module)
            .filter_map(|payload| match payload.unwrap() {
                Payload::CodeSectionEntry(body) => Some(body),
                _ => None,
            })
            .map(|body| {
                let operators = body.get_operators_reader().unwrap().into_iter();
                operators.map(Result::unwrap).collect()
            })
            .collect();
        let [function, copy] = bodies.as_slice() else {
            panic!("{} functions", bodies.len());
        };
        assert!(matches!(
            function.as_slice(),
            [.., Operator::Call { function_index: 2 }, Operator::End]
        ));
        let copies = |one: &&Operator<'_>| matches!(one, Operator::MemoryCopy { .. });
        assert_eq!(copy.iter().filter(copies).count(), 1);
        let types = Parser::new(0)
            .parse_all(&module)
            .find_map(|payload| match payload.unwrap() {
                Payload::FunctionSection(section) => {
                    Some(section.into_iter().map(Result::unwrap).collect::<Vec<_>>())
                }
                _ => None,
            });
        assert_eq!(types, Some(vec![0, 1]));
    }

    #[test]
    fn an_import_that_is_not_listed_is_an_error() {
        let (mut types, mut imports) = (TypeSection::new(), ImportSection::new());
        types.ty().function([], []);
        for name in ["proxy_log", "proxy_done"] {
            imports.import("env", name, EntityType::Function(0));
        }
        let mut module = Module::new();
        let module = module.section(&types).section(&imports).as_slice();
        let check =
            |list: &str| check_imports(module, &names(list)).map_err(|error| error.to_string());
        assert_eq!(check("proxy_log\nproxy_done # never\n"), Ok(()));
        assert!(check("proxy_log").unwrap_err().contains("proxy_done"));
    }

    #[test]
    fn a_listed_name_that_is_not_exported_is_an_error() {
        let error = keep_exports(&module(&["memory"]), names("memory\nproxy_on_lgo")).unwrap_err();
        assert!(error.to_string().contains("proxy_on_lgo"), "{error}");
    }
}
