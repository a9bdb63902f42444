"""How `benchmarks.kernels` counts, on short texts of the compiler."""

from benchmarks import kernels
from benchmarks.gpu import hlo

THUNKS = """\
000: kCommandBuffer [source | sink]
    001: kCopy  [source] kCopy
002: kWhile [prev=000 (1)]
condition:
    003: kCustomKernel [source | sink] loop_compare_fusion grid: [1, 1, 1]
  body:
    000: kCommandBuffer [source]
        004: kCustomKernel [source] loop_add_fusion grid: [8, 1, 1]
        009: kConditional  [prev=004 (1)]
          false_branch:
            005: kCustomKernel [source] input_reduce_fusion grid: [16, 1, 1]
            006: kCublasLtMatmul [prev=005 (1)] kCublasLtMatmul
          true_branch:
            007: kCopy [source | sink] kCopy
    010: kFft [prev=009 (1)] (no description)
"""
HLO = """\
HloModule jit_run

%fused_take (param_0: f32[100], param_1: s32[10]) -> f32[10] {
  %param_0 = f32[100]{0} parameter(0)
  %param_1 = s32[10]{0} parameter(1)
  ROOT %gather = f32[10]{0} gather(%param_0, %param_1), slice_sizes={1}
}

%body (state: (f32[100], s32[10])) -> (f32[100], s32[10]) {
  %state = (f32[100]{0}, s32[10]{0}) parameter(0)
  %a = f32[100]{0} get-tuple-element(%state), index=0
  %b = s32[10]{0} get-tuple-element(%state), index=1
  %taken = f32[10]{0} fusion(%a, %b), kind=kLoop, calls=%fused_take
  %product = (f32[100]{0}, s8[4096]{0}) custom-call(%a, %taken), custom_call_target="gemm"
  %kept = f32[100]{0} get-tuple-element(%product), index=0
  ROOT %out = (f32[100]{0}, s32[10]{0}) tuple(%kept, %b)
}

ENTRY %main (x: f32[100], y: s32[10]) -> f32[100] {
  %loop = (f32[100]{0}, s32[10]{0}) while(%x), condition=%cond, body=%body
}
"""


def test_what_an_iteration_starts():
    """Of a condition the longer branch counts; the host waits for a loop outside a graph."""
    found = hlo.iteration(hlo.thunks(THUNKS), trips_known=False)
    assert found == hlo.Started(
        kernels=5, ffts=1, products=1, graphs=1, waits=1, loops_in_graph=False
    )
    lines = ["000: kCommandBuffer [source]", *("    " + line for line in THUNKS.splitlines())]
    inside = hlo.iteration(hlo.thunks("\n".join(lines)), trips_known=False)
    assert (inside.kernels, inside.graphs, inside.waits) == (5, 0, 0) and inside.loops_in_graph
    least, most = kernels.model(found, 0)
    assert 0 < kernels.model(inside, 0)[0] < least < most < kernels.model(found, 10**9)[0]


def test_bytes_are_those_that_are_taken():
    """Of an operand only gathered values count, and no workspace of a product."""
    taken, product = 10 * 4 + 10 * 4 + 10 * 4, 100 * 4 + 10 * 4 + 100 * 4
    assert hlo.moved(HLO) == (taken + product, 0)
