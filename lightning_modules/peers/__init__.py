"""What each peer is called with: plain functions that import NumPy and the peer only.

They run in this process or in the peer's own interpreter (see `reg_bench.peer`), which knows nothing of this
package: nothing of ours may be imported here. Each takes `fixed` and `moving` (*S) float32 in 0..1, the spacings
(D,) of their grids, its settings and `threads`, and returns the displacement (D, *S) on the fixed grid in the unit
of the spacings, component `c` along array axis `c`, from fixed to moving positions. Voxel 0 of both grids lies at
the origin and the axes are the world's.
"""
