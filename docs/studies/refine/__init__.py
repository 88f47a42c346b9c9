"""Study: labels that ask whether a lesion was found, and where its edge is, one by one."""
