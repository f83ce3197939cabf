"""Fields on grids: HDF5, NetCDF and Zarr, with names, units and boundaries; and a flow that is computed."""
