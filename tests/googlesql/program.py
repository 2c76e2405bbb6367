"""GoogleSQL's analyzer and reference engine, for the tests' own process, which calls it over stdin.

python -m tests.googlesql.program
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import json
import pickle
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from datetime import UTC, date, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Final

_PROTOS: Final = "zetasql.wasi._pb2.zetasql"

_wasmtime: Any = import_module("wasmtime")
_zetasql: Any = import_module("zetasql.wasi")
_service: Any = import_module(f"{_PROTOS}.local_service.local_service_pb2")
_options: Any = import_module(f"{_PROTOS}.proto.options_pb2")
_types: Any = import_module(f"{_PROTOS}.public.type_pb2")
_values: Any = import_module(f"{_PROTOS}.public.value_pb2")

FEATURES: Final = """
    ADDITIONAL_STRING_FUNCTIONS ALLOW_DASHES_IN_TABLE_NAME ALLOW_REGEXP_EXTRACT_OPTIONALS ANALYTIC_FUNCTIONS
    BARE_ARRAY_ACCESS BIGNUMERIC_TYPE CIVIL_TIME CONCAT_MIXED_TYPES DATE_ARITHMETICS DATE_TIME_CONSTRUCTORS
    DECIMAL_ALIAS EXTENDED_DATE_TIME_SIGNATURES FORMAT_IN_CAST GROUPING_BUILTIN GROUPING_SETS GROUP_BY_ALL
    GROUP_BY_ARRAY GROUP_BY_ROLLUP GROUP_BY_STRUCT HAVING_IN_AGGREGATE INTERVAL_TYPE IS_DISTINCT
    JSON_ARRAY_FUNCTIONS JSON_CONSTRUCTOR_FUNCTIONS JSON_KEYS_FUNCTION JSON_LAX_VALUE_EXTRACTION_FUNCTIONS
    JSON_MUTATOR_FUNCTIONS JSON_QUERY_LAX JSON_TYPE JSON_VALUE_EXTRACTION_FUNCTIONS LIKE_ANY_SOME_ALL
    LIMIT_IN_AGGREGATE NAMED_ARGUMENTS NULLS_FIRST_LAST_IN_ORDER_BY NULL_HANDLING_MODIFIER_IN_AGGREGATE
    NULL_HANDLING_MODIFIER_IN_ANALYTIC NUMERIC_TYPE ORDER_BY_IN_AGGREGATE PARAMETERIZED_TYPES PIVOT QUALIFY
    ROUND_WITH_ROUNDING_MODE SAFE_FUNCTION_CALL SELECT_STAR_EXCEPT_REPLACE TABLESAMPLE TIME_BUCKET_FUNCTIONS
    UNPIVOT WEEK_WITH_WEEKDAY WITH_ON_SUBQUERY WITH_RECURSIVE
"""
"""What may be used of the language: it stands in BigQuery's reference. All else is off, and refused."""

LACKED: Final = """
    apply approx_cosine_distance approx_dot_product approx_euclidean_distance array_filter array_first_n
    array_includes array_includes_all array_includes_any array_is_distinct array_last_n array_max
    array_min array_remove_first_n array_remove_last_n array_transform dot_product elementwise_avg
    elementwise_sum flatten iferror is_first is_last iserror l1_norm l2_norm manhattan_distance
    nulliferror regexp_extract_groups safe_to_json split_substr timestamp_from_unix_micros
    timestamp_from_unix_millis timestamp_from_unix_seconds to_seconds_interval zstd_compress
    zstd_decompress_to_bytes zstd_decompress_to_string
"""
"""The functions that GoogleSQL has with these features, and that are not in BigQuery's reference."""


class Engine:
    """Google's own code as WebAssembly: a function call takes and returns a message of protocol buffers."""

    def __init__(self) -> None:
        config = _wasmtime.Config()
        config.shared_memory = True
        config.cranelift_opt_level = "none"
        beside = Path(sysconfig.get_path("data"))
        with (beside / "wasmtime.toml").open("a", encoding="utf-8") as file:
            # To compile takes 40 s, once. Whoever comes meanwhile waits.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(0)
            file.write(f"[cache]\ndirectory = {json.dumps(str(beside / 'wasmtime'))}\n")
            file.flush()
            config.cache = file.name
            engine = _wasmtime.Engine(config)
            module = _wasmtime.Module.from_file(engine, _zetasql.get_wasm_path())
        zones = Path(str(import_module("tzdata").__file__)).with_name("zoneinfo")
        system = _wasmtime.WasiConfig()
        system.inherit_stderr()
        system.preopen_dir(str(zones), "/usr/share/zoneinfo")
        self._store = _wasmtime.Store(engine)
        self._store.set_wasi(system)
        linker = _wasmtime.Linker(engine)
        linker.define_wasi()
        self._functions = linker.instantiate(self._store, module).exports(self._store)
        self._run("_initialize")
        self._memory = ctypes.addressof(self._functions["memory"].data_ptr().contents)

    def _run(self, name: str, *arguments: int) -> Any:
        return self._functions[name](self._store, *arguments)

    def _read(self, start: int, size: int) -> bytes:
        return ctypes.string_at(self._memory + start, size)

    def call(self, name: str, request: Any, response: Any) -> Any:
        """Return *response*, filled by the function *name*, or raise a ValueError with what it refuses."""
        data = request.SerializeToString()
        given, size = self._run("wasm_malloc", len(data)), self._run("wasm_malloc", 4)
        ctypes.memmove(self._memory + given, data, len(data))
        found = self._run(f"ZetaSqlLocalService_{name}", given, len(data), size)
        if not found:
            length = self._run("wasm_get_last_error_size")
            message = self._read(self._run("wasm_get_last_error"), length).decode()
            raise ValueError(message.partition("Message: ")[2] or message)
        response.ParseFromString(self._read(found, int.from_bytes(self._read(size, 4), "little")))
        for each in (given, size, found):
            self._run("wasm_free", each)
        return response


class Database:
    """Tables, views over them, and what queries make of them."""

    def __init__(self) -> None:
        self._engine = Engine()
        options = self._engine.call(
            "GetAnalyzerOptions", _service.AnalyzerOptionsRequest(), _options.AnalyzerOptionsProto()
        )
        options.default_timezone = "UTC"
        options.error_message_mode = "ERROR_MESSAGE_MULTI_LINE_WITH_CARET"
        language = options.language_options
        language.product_mode = "PRODUCT_EXTERNAL"
        language.enabled_language_features.extend(f"FEATURE_{name}" for name in FEATURES.split())
        language.supported_statement_kinds.append("RESOLVED_CREATE_VIEW_STMT")
        language.reserved_keywords.append("QUALIFY")
        self._asked = _service.EvaluateQueryRequest(options=options)
        # The types that are Google's own, such as those of date parts.
        self._asked.descriptor_pool_list.definitions.add().builtin.SetInParent()
        functions = self._asked.simple_catalog.builtin_function_options
        functions.language_options.CopyFrom(language)
        for each in self._engine.call(
            "GetBuiltinFunctions", functions, _service.GetBuiltinFunctionsResponse()
        ).function:
            if ".".join(each.name_path) in LACKED.split():
                functions.exclude_function_ids.extend(one.context_id for one in each.signature)
        self._contents: dict[str, Any] = {}
        self._views: dict[str, str] = {}

    def analyze(self, query: str) -> None:
        """Raise a ValueError with the reason if BigQuery would refuse *query*."""
        self._read(query)

    def table(self, name: str, columns: Mapping[str, str]) -> None:
        """Have a table of *columns*, whose types are those of BigQuery's API, for rows to come."""
        own = self._asked.simple_catalog.table.add(name=name)
        for column, kind in columns.items():
            own.column.add(name=column).type.type_kind = f"TYPE_{kind}"

    def view(self, name: str, query: str) -> None:
        """Have a view."""
        # On one line, so that what is refused is told with its own line.
        statement = self._read(f"CREATE VIEW `{name}` AS {query}").resolved_create_statement_node
        made = statement.resolved_create_view_base_node.resolved_create_view_stmt_node.parent
        own = self._asked.simple_catalog.table.add(name=name)
        for output in made.output_column_list:
            own.column.add(name=output.name, type=output.column.type)
        self._views[name] = query

    def load(self, table: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Fill a table anew with texts, bytes and times, and work the views out."""
        (columns,) = (each.column for each in self._asked.simple_catalog.table if each.name == table)
        content = self._contents[table] = _service.TableContent(table_data={})
        for row in rows:
            content.table_data.row.add(cell=[_cell(column.type, row[column.name]) for column in columns])
        for name, query in self._views.items():
            self._contents[name] = self._found(query).content

    def rows(self, query: str) -> list[dict[str, object]]:
        """Return the rows of *query* by the names of their columns."""
        found = self._found(query)
        columns = found.prepared.columns
        return [
            {column.name: _value(cell) for column, cell in zip(columns, row.cell, strict=True)}
            for row in found.content.table_data.row
        ]

    def _read(self, statement: str) -> Any:
        asked = _service.AnalyzeRequest(
            options=self._asked.options,
            simple_catalog=self._asked.simple_catalog,
            descriptor_pool_list=self._asked.descriptor_pool_list,
            sql_statement=statement,
        )
        return self._engine.call("Analyze", asked, _service.AnalyzeResponse()).resolved_statement

    def _found(self, query: str) -> Any:
        self._asked.sql = query
        self._asked.table_content.clear()
        for name, content in self._contents.items():
            if name in query:  # it is read anew each time
                self._asked.table_content[name].CopyFrom(content)
        return self._engine.call("EvaluateQuery", self._asked, _service.EvaluateQueryResponse())


def _cell(of: Any, value: Any) -> Any:
    kind = _types.TypeKind.Name(of.type_kind).removeprefix("TYPE_").lower()
    cell = _values.ValueProto()
    if kind == "timestamp":
        cell.timestamp_value.FromDatetime(value)
    else:
        setattr(cell, f"{kind}_value", value)
    return cell


def _value(cell: Any) -> object:
    match kind := cell.WhichOneof("value"):
        case None:
            return None
        case "timestamp_value":
            return cell.timestamp_value.ToDatetime(tzinfo=UTC)
        case "date_value":
            return date(1970, 1, 1) + timedelta(days=cell.date_value)
        case _:
            return getattr(cell, kind)


def main() -> None:
    """Answer each call, a method and its arguments, with what it returns or with the error that it raises."""
    database = Database()
    for line in sys.stdin:
        method, *arguments = pickle.loads(base64.b64decode(line))  # noqa: S301 - it is the tests that call
        try:
            answer: object = getattr(database, method)(*arguments)
        except ValueError as error:
            answer = error
        sys.stdout.write(f"{base64.b64encode(pickle.dumps(answer)).decode()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
