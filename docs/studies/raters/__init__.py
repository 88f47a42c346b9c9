"""Study: seven real raters, how many a training needs, and whether a network is one of them."""
