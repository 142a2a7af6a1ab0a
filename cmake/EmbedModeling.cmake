# cmake -D OUTPUT=FILE.cpp -P EmbedModeling.cmake: the Python of exported models as strings of C++, so that an installed program
# needs no files beside it. checkpoints/formats/modeling_longreach.py is the decoder, layers/attention/NAME/modeling.py a kind.
set(root ${CMAKE_CURRENT_LIST_DIR}/..)

function(embed name file)
  file(READ ${root}/${file} contents)
  file(APPEND ${OUTPUT} "      {\"${name}\", R\"PYTHON(${contents})PYTHON\"},\n")
endfunction()

file(WRITE ${OUTPUT} "#include \"checkpoints/formats/modeling_sources.h\"\n\nnamespace longreach {\n\n"
     "const std::map<std::string, std::string>& modeling_sources() {\n"
     "  static const std::map<std::string, std::string> sources{\n")
embed("" checkpoints/formats/modeling_longreach.py)
file(GLOB kinds RELATIVE ${root} ${root}/layers/attention/*/modeling.py)
foreach(file IN LISTS kinds)
  get_filename_component(folder ${file} DIRECTORY)
  get_filename_component(kind ${folder} NAME)
  embed(${kind} ${file})
endforeach()
file(APPEND ${OUTPUT} "  };\n  return sources;\n}\n\n}  // namespace longreach\n")
