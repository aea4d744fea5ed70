"""Programs: SavedModels that hold no tenant's data, exported once and shared by every tenant that uses them."""
